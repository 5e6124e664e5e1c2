# The server without a name has a unit without one.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.redisUrl = "redis://[::1]:6379";
  services.redis.servers."" = {
    enable = true;
    port = 6379;
  };
}
