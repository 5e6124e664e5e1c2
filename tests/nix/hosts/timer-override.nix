# A user's own setting of the timer.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  systemd.timers.gitlab-backup-run.timerConfig.FixedRandomDelay = true;
}
