# Omitted items of each kind.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.omit = [
    "gitlab-workhorse.service"
    "/var/gitlab/state/builds"
    "gitlab"
    "unix:///run/gitlab/redis.sock"
  ];
  # The program requires at least one database, unless postgresql.enable is false.
  services.gitlab-backup.settings.postgresql.databases = [ "registry" ];
}
