# The storages of repositories that another host serves, a Gitaly or a Praefect: their repositories
# are not here.
{
  lib,
  gitlab,
  # Of this host.
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
      found = match "[a-z]+:(.*/)?([[]([^]]*)]|[^:]*)(:[0-9]+)?" address;
      bare = if found == null then null else elemAt found 2;
    in
    if found == null then
      ""
    else if bare != null then
      bare
    else
      elemAt found 1;
  short = name: head (splitString "." name);
  isLocal =
    address:
    hasPrefix "unix:" address
    || hasPrefix "127." (host address)
    || elem (host address) (
      [
        ""
        "localhost"
        "::1"
      ]
      ++ names
    )
    || elem (short (host address)) (map short (filter (name: name != "") names));
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
