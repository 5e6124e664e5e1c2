# Every run is kept, and nothing is verified.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings = {
    retention = {
      keep-daily = null;
      keep-weekly = null;
      keep-monthly = null;
    };
    verify.calendar = null;
  };
}
