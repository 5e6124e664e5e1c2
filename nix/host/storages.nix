# The storages that a Gitaly or a Praefect on another host serves: their repositories are not on this
# host.
{
  lib,
  gitlab,
  # The names of this host.
  names,
}:
let
  inherit (builtins)
    attrNames
    elem
    elemAt
    filter
    head
    isString
    match
    ;
  inherit (lib) hasPrefix splitString;
  storages = gitlab.extraConfig.repositories.storages or { };
  # `tcp://host:port`, `tls://…`, `dns://authority/host:port`.
  host =
    address:
    let
      # Anything that is not an address is treated as another host.
      found = match "[a-z]+:(.*/)?([[]([^]]*)]|[^:/]+)(:[0-9]+)?/*" (lib.toLower address);
      bare = if found == null then null else elemAt found 2;
    in
    if found == null then
      address
    else if bare != null then
      bare
    else
      elemAt found 1;
  short = name: head (splitString "." name);
  own = filter (name: name != "") (map lib.toLower names);
  isLocal =
    address:
    hasPrefix "unix:" (lib.toLower address)
    || hasPrefix "127." (host address)
    || elem (host address) (
      [
        "localhost"
        "::1"
      ]
      ++ own
    )
    || elem (short (host address)) (map short own);
in
{
  remote =
    map
      (name: {
        inherit name;
        address = storages.${name}.gitaly_address;
      })
      (
        filter (
          name:
          let
            address = storages.${name}.gitaly_address or null;
          in
          isString address && !isLocal address
        ) (attrNames storages)
      );
}
