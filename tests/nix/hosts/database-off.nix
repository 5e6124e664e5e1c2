# There is no PostgreSQL to dump.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings.postgresql.enable = false;
}
