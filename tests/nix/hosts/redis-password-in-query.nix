# The same for a password in a parameter.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.redisUrl = "unix:/run/gitlab/redis.sock?db=1&password=hunter2";
}
