# No services.gitlab, and nothing said.
{
  services.gitlab-backup.enable = true;
}
