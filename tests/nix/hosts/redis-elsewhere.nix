# A Redis on another host, with TLS and a user.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.redisUrl = "rediss://gitlab@cache.example.com:6380/1";
}
