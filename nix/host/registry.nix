# Where the container registry keeps its images, and what it knows of them. `extraConfig` wins, as
# in the registry's module.
{
  lib,
  gitlab,
  registry,
}:
let
  inherit (builtins) elem;
  extra = registry.extraConfig or { };
  root = extra.storage.filesystem.rootdirectory or registry.storagePath or null;
  database = extra.database or { };
  ifEnabled = test: value: if gitlab.registry.enable && test then value else null;
in
{
  storage = ifEnabled (root != null) (toString root);
  # Off unless it is said; `prefer` uses it where it can.
  database = ifEnabled (elem (database.enabled or false) [
    true
    "true"
    "prefer"
  ]) database;
}
