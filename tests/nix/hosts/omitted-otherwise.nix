# A path with a slash at its end, one below a derived one, and names that match nothing.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.omit = [
    "/var/gitlab/state/builds/"
    "/var/gitlab/state/shared/cache[1]"
    "/var/gitlab"
    "/var/gitlab/state/typo"
    "gitlab-sidekik.service"
  ];
}
