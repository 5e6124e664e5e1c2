# A database of another host: by password, as GitLab's role.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab = {
    databaseHost = "db.example.com";
    databasePasswordFile = "/run/keys/db";
  };
}
