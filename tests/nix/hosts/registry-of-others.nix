# A registry that GitLab knows nothing of.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.dockerRegistry.enable = true;
}
