# The units that write GitLab's data, derived from the options of their modules. Deriving them from
# `systemd.services` would be an infinite recursion on a host that adds a setting to each writer.
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
# Without the target and the oneshots that write the configuration: they stay up.
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
    # It starts the registry again when it ends.
    "docker-registry-garbage-collect.service"
  ]
  ++ optional (registry.enableGarbageCollect or false) "docker-registry-garbage-collect.timer"
)
# GitLab's own backup is bound to gitlab.service and starts it.
++ optional (gitlab.backup.startAt or [ ] != [ ]) "gitlab-backup.timer"
++ [ "gitaly.service" ]
