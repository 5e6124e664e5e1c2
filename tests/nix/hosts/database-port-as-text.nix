# Rails also accepts a port as text.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraDatabaseConfig.port = "5433";
}
