# Secrets in the store that are derived: their own options are named.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.databaseHost = "db.example.com";
  services.gitlab.databasePasswordFile = "${builtins.storeDir}/0123456789abcdfghijklmnpqrsvwxyz-db";
  services.redis.servers.gitlab.requirePassFile =
    "${builtins.storeDir}/0123456789abcdfghijklmnpqrsvwxyz-redis";
}
