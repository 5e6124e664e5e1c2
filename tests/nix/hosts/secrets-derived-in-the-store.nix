# Derived secrets in the store: the message names their own options.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.databaseHost = "db.example.com";
  services.gitlab.databasePasswordFile = "${builtins.storeDir}/0123456789abcdfghijklmnpqrsvwxyz-db";
  services.redis.servers.gitlab.requirePassFile =
    "${builtins.storeDir}/0123456789abcdfghijklmnpqrsvwxyz-redis";
}
