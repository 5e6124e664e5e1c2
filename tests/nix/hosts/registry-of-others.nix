# A registry that GitLab does not use.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.dockerRegistry.enable = true;
}
