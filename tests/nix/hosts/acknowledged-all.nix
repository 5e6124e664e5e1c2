# Every warning about a task that only an admin can do is acknowledged.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.registry.enable = true;
  services.gitlab.backup.startAt = "03:00";
  services.dockerRegistry = {
    storagePath = null;
    extraConfig.database = {
      enabled = true;
      host = "db.example.com";
    };
  };
  services.gitlab-backup = {
    settings.retention = {
      keep-daily = null;
      keep-weekly = null;
      keep-monthly = null;
    };
    acknowledged = [
      "copy-elsewhere"
      "key-elsewhere"
      "gitlab-backup"
      "registry-images"
      "registry-database"
      "keep-all"
    ];
  };
}
