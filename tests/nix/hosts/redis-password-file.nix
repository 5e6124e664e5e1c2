# Following the advice of the refusal is enough.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.redisUrl = "redis://:hunter2@cache.example.com:6380/0";
  services.gitlab-backup.settings.redis = [
    {
      name = "main";
      url = "redis://cache.example.com:6380";
      password-file = "/run/secrets/redis";
    }
  ];
}
