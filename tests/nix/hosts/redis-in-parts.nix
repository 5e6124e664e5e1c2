# Two modules configure the derived instance, in GitLab's own spelling.
{ lib, ... }:
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings.redis = lib.mkMerge [
    [
      {
        url = "unix:/run/gitlab/redis.sock";
        timeout = "1h";
      }
    ]
    [
      {
        url = "unix:///run/gitlab/redis.sock/";
        name = "gitlab";
      }
    ]
  ];
}
