# Rails takes a port as text, too.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraDatabaseConfig.port = "5433";
}
