# A directory of a socket is local: asked by the server's own role.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.databaseHost = "/run/postgresql";
  services.gitlab.databasePasswordFile = "/run/keys/db";
}
