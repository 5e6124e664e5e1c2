# The server listens on the address that GitLab connects to.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.redisUrl = "redis://10.0.0.5:6379";
  services.redis.servers.gitlab = {
    port = 6379;
    bind = "127.0.0.1 10.0.0.5";
  };
}
