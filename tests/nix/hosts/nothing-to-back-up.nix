# No services.gitlab, and no settings.
{
  services.gitlab-backup.enable = true;
}
