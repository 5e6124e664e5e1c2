# GitLab uses another Redis than the one that services.redis runs: a restore has no unit to stop.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.redisUrl = "unix:/run/other/redis.sock";
}
