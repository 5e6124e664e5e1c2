# The password is not configured.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.databaseHost = "db.example.com";
}
