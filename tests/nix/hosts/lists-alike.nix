# Paths that equal derived ones, are inside them or end with a slash, and keys of the derived Redis.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings = {
    files.paths = [
      "/var/gitlab/state/repositories/"
      "/var/gitlab/state/shared/artifacts"
      "/srv//extra/"
    ];
    files.configuration = [ "/srv/extra/" ];
    files.exclude = [ "/srv/extra/cache/" ];
    redis = [
      {
        name = "gitlab";
        url = "unix:///run/gitlab/redis.sock";
        timeout = "1h";
      }
    ];
  };
}
