# The server does not listen on a port: another Redis answers there.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.redisUrl = "redis://127.0.0.1:6379/0";
}
