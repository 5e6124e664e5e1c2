# What GitLab's module merges into database.yml wins over its other options.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab = {
    databasePasswordFile = "/run/keys/db";
    extraDatabaseConfig = {
      host = "db.example.com";
      port = 6432;
      username = "gitlab_rw";
      database = "gitlabhq";
    };
  };
}
