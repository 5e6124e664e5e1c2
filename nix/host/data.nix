# Where GitLab keeps its data. `services.gitlab.extraConfig` overrides the paths that GitLab's module
# sets, so the paths are read after the two are merged in the same way as that module merges them.
{
  lib,
  gitlab,
  registryStorage,
}:
let
  inherit (builtins) attrValues concatMap isString;
  inherit (lib) hasPrefix optional recursiveUpdate;
  inherit (import ./paths.nix { inherit lib; }) clean;

  below = name: "${gitlab.statePath}/${name}";
  merged = recursiveUpdate {
    repositories.storages.default.path = below "repositories";
    uploads.storage_path = gitlab.statePath;
    gitlab_ci.builds_path = below "builds";
    shared.path = below "shared";
  } (gitlab.extraConfig or { });
  uploads =
    if isString (merged.uploads.storage_path or null) then
      merged.uploads.storage_path
    else
      gitlab.statePath;
  # An empty value means the default.
  avatars =
    let
      given = merged.uploads.base_dir or null;
    in
    if isString given && given != "" then given else "uploads";
  # Empty if there is no path, as for a storage of another host, or if the value is a secret.
  at = value: optional (isString value && hasPrefix "/" value) (clean value);

  # Each is below `shared.path` unless a key moves it. GitLab has used several names for that key.
  kinds = [
    "artifacts"
    "ci_secure_files"
    "dependency_proxy"
    "encrypted_settings"
    "external_diffs"
    "lfs"
    "packages"
    "pages"
    "registry"
    "terraform_state"
  ];
  moved =
    kind:
    at (merged.${kind}.path or null)
    ++ at (merged.${kind}.storage_path or null)
    ++ at (merged.${kind}.local_store.path or null);
in
# Includes paths inside others, because the outer one may be left out.
lib.unique (
  concatMap (storage: at (storage.path or null)) (attrValues (merged.repositories.storages or { }))
  ++ at "${uploads}/uploads"
  # Avatars and similar files, which can be in another directory.
  ++ at (if hasPrefix "/" avatars then avatars else "${uploads}/${avatars}")
  # The programs other than Rails find the uploads by this variable.
  ++ at (gitlab.extraEnv.GITLAB_UPLOADS_PATH or (below "uploads"))
  ++ at (merged.gitlab_ci.builds_path or null)
  ++ at (merged.shared.path or null)
  ++ at (below "custom_hooks")
  # The keys that open repositories by SSH.
  ++ at (below "home")
  ++ concatMap moved kinds
  ++ at registryStorage
  ++ lib.optionals gitlab.pages.enable (at (gitlab.pages.settings.pages-root or null))
)
