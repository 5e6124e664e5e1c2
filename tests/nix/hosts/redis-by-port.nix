# The server listens on this host's port.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.redisUrl = "redis://localhost:6379/";
  services.redis.servers.gitlab.port = 6379;
}
