# A calendar in addition to ours: both would apply.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  systemd.timers.gitlab-backup-run.timerConfig.OnCalendar = "05:00";
  systemd.timers.gitlab-backup-verify.timerConfig.OnCalendar = [ "Sat 05:00" ];
}
