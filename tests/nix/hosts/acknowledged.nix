# Every warning is acknowledged.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.backup.startAt = [ "03:00" ];
  services.gitlab-backup.acknowledged = [
    "copy-elsewhere"
    "key-elsewhere"
    "gitlab-backup"
  ];
}
