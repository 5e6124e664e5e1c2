# A password in the URL is refused, with advice.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.redisUrl = "redis://:hunter2@cache.example.com:6380/0";
}
