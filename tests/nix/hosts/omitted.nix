# What the backup leaves out, of each kind.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.omit = [
    "gitlab-workhorse.service"
    "/var/gitlab/state/builds"
    "gitlab"
    "unix:///run/gitlab/redis.sock"
  ];
  # The program wants one at least, or none by postgresql.enable.
  services.gitlab-backup.settings.postgresql.databases = [ "registry" ];
}
