# A switch waits an hour for a run.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.waitBeforeSwitch = 3600;
}
