# Another server of services.redis, with a password.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.redisUrl = "unix:///run/redis-cache/redis.sock?db=2";
  services.redis.servers.cache = {
    enable = true;
    unixSocket = "/run/redis-cache/redis.sock";
    requirePassFile = "/run/keys/redis";
  };
}
