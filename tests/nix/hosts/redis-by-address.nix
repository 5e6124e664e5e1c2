# The server listens on one address, which is not the one that GitLab connects to.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.redisUrl = "redis://localhost:6379";
  services.redis.servers.gitlab = {
    port = 6379;
    bind = "10.0.0.5";
  };
}
