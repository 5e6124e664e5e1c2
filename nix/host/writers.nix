# The units that write GitLab's data. Known from the options of their modules and not from
# `systemd.services`: a host that adds something to each writer there would never be evaluated.
{
  lib,
  gitlab,
  registry,
  # Whether the registry is GitLab's.
  withRegistry,
}:
let
  inherit (lib) optional optionals;
in
# The target and the oneshots that write the configuration are missing: they stay up.
[
  "gitlab.service"
  "gitlab-sidekiq.service"
  "gitlab-workhorse.service"
]
++ optional (gitlab.extraConfig.incoming_email.enabled or false) "gitlab-mailroom.service"
++ optional gitlab.pages.enable "gitlab-pages.service"
++ optionals withRegistry (
  [
    "docker-registry.service"
    # Starts the registry again when it is done.
    "docker-registry-garbage-collect.service"
  ]
  ++ optional (registry.enableGarbageCollect or false) "docker-registry-garbage-collect.timer"
)
# GitLab's own backup is bound to gitlab.service: what starts the one starts the other.
++ optional (gitlab.backup.startAt or [ ] != [ ]) "gitlab-backup.timer"
++ [ "gitaly.service" ]
