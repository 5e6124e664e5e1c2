# The files with GitLab's secrets. Some of them are required to read its database.
{
  lib,
  gitlab,
  # Whether there is a registry, with which GitLab shares a key.
  withRegistry,
}:
let
  inherit (builtins)
    attrNames
    concatMap
    filter
    isAttrs
    isList
    isPath
    isString
    ;
  inherit (lib)
    hasPrefix
    mapAttrsToList
    optional
    optionals
    unique
    ;
  inherit (import ./paths.nix { inherit lib; }) clean;

  named = option: path: { inherit option path; };
  # `{ _secret = FILE; }` stands for the content of the file.
  nested =
    option: value:
    if isAttrs value && value ? _secret then
      [ (named option value._secret) ]
    else if isAttrs value then
      concatMap (
        name:
        # A secret that GitLab's services share, as a plain path.
        if
          name == "secret_file"
          && (isPath value.${name} || isString value.${name} && hasPrefix "/" value.${name})
        then
          [ (named "${option}.secret_file" value.${name}) ]
        else
          nested "${option}.${name}" value.${name}
      ) (attrNames value)
    else if isList value then
      concatMap (nested option) value
    else
      [ ];
  key = gitlab.extraConfig.registry.key or null;
  given = filter (secret: secret.path != null) (
    mapAttrsToList (name: named "services.gitlab.secrets.${name}") gitlab.secrets
    ++ [
      (named "services.gitlab.databasePasswordFile" gitlab.databasePasswordFile)
      (named "services.gitlab.initialRootPasswordFile" gitlab.initialRootPasswordFile)
    ]
    ++ optional (gitlab.smtp.enable or false) (
      named "services.gitlab.smtp.passwordFile" (gitlab.smtp.passwordFile or null)
    )
    ++ nested "services.gitlab.extraConfig" (gitlab.extraConfig or { })
    ++ nested "services.gitlab.workhorse.config" (gitlab.workhorse.config or { })
    ++ nested "services.gitlab.backup.uploadOptions" (gitlab.backup.uploadOptions or { })
    ++ optionals gitlab.pages.enable (
      nested "services.gitlab.pages.settings" (gitlab.pages.settings or { })
    )
    ++ optional withRegistry (
      named "services.gitlab.registry.keyFile" (gitlab.registry.keyFile or null)
    )
    # The key of a registry that GitLab's module does not set up.
    ++ optional (isString key) (named "services.gitlab.extraConfig.registry.key" key)
  );
  # Not a secret, but GitLab creates it together with the key if it is missing.
  certificate = filter (one: one.path != null) (
    optional withRegistry (named "services.gitlab.registry.certFile" (gitlab.registry.certFile or null))
  );
in
{
  # GitLab reads a Nix path from the store; the path itself is on the machine that evaluates.
  asNixPaths = unique (map (secret: secret.option) (filter (secret: isPath secret.path) given));
  # Without files in the store: they are restored with the system, and everybody can read them.
  files = unique (
    map (file: clean (toString file.path)) (
      filter (file: !isPath file.path && !hasPrefix builtins.storeDir (toString file.path)) (
        given ++ certificate
      )
    )
  );
}
