# A Redis whose URL has a password is omitted.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.redisUrl = "redis://:hunter2@localhost:6379";
  services.gitlab-backup.omit = [ "redis://localhost:6379" ];
}
