# A database on another host: the backup connects with a password, as GitLab's role.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab = {
    databaseHost = "db.example.com";
    databasePasswordFile = "/run/keys/db";
  };
}
