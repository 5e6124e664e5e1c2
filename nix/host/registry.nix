# Where the container registry keeps its images, and what it knows of them. `extraConfig` wins, as
# in the registry's module.
{
  gitlab,
  registry,
  # Whether the registry has a configuration of its own, which wins over both.
  configured,
}:
let
  inherit (builtins) elem;
  extra = registry.extraConfig or { };
  root = extra.storage.filesystem.rootdirectory or registry.storagePath or null;
  database = extra.database or { };
  # GitLab's module sets up a registry for it, or a user tells GitLab of one on this host.
  enabled =
    gitlab.registry.enable
    || (registry.enable or false) && (gitlab.extraConfig.registry.enabled or false) == true;
in
{
  inherit enabled;
  storage = if enabled && root != null then toString root else null;
  # Whether images may be where nobody knows of them.
  elsewhere = enabled && (configured || root == null);
  # Off unless it is said; `prefer` uses it where it can.
  database =
    if
      enabled
      && elem (database.enabled or false) [
        true
        "true"
        "prefer"
      ]
    then
      database
    else
      null;
}
