# Where the container registry keeps its images and their metadata. `extraConfig` overrides the
# options, as in the registry's module.
{
  gitlab,
  registry,
  # Whether the registry has a configuration file of its own, which overrides both.
  configured,
}:
let
  inherit (builtins) elem;
  extra = registry.extraConfig or { };
  root = extra.storage.filesystem.rootdirectory or registry.storagePath or null;
  database = extra.database or { };
  # GitLab's module sets up a registry, or the user connects GitLab to one on this host.
  enabled =
    gitlab.registry.enable
    || (registry.enable or false) && (gitlab.extraConfig.registry.enabled or false) == true;
in
{
  inherit enabled;
  storage = if enabled && root != null then toString root else null;
  # Whether the images may be in an unknown place.
  elsewhere = enabled && (configured || root == null);
  # Off by default; `prefer` uses it if it is available.
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
