# Likewise, where the user says that it is meant so.
{ lib, ... }:
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup = {
    omit = [
      "gitaly.service"
      "/var/gitlab/state/builds"
    ];
    settings = {
      gitlab.writers = lib.mkForce [
        "gitlab.service"
        "gitlab-sidekiq.service"
        "gitlab-workhorse.service"
      ];
      files.paths = lib.mkForce [
        "/var/gitlab/state/repositories"
        "/var/gitlab/state/uploads"
        "/var/gitlab/state/shared"
        "/var/gitlab/state/custom_hooks"
        "/var/gitlab/state/home"
        "/var/gitlab/state/config"
      ];
    };
  };
}
