# The directory of a socket is local: the backup connects with the server's own role.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.databaseHost = "/run/postgresql";
  services.gitlab.databasePasswordFile = "/run/keys/db";
}
