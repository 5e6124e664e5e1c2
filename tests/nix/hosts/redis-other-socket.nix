# GitLab asks another Redis than the one that services.redis runs: no unit to stop for a restore.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.redisUrl = "unix:/run/other/redis.sock";
}
