# Redis is omitted, in GitLab's own spelling.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.omit = [ "unix:/run/gitlab/redis.sock" ];
}
