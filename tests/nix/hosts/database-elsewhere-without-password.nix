# Nothing says the password.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.databaseHost = "db.example.com";
}
