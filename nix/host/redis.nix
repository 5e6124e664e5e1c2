# The Redis of `services.gitlab.redisUrl`: its URL in the form that the program accepts, and the
# server of `services.redis.servers` that listens there.
{
  lib,
  url,
  servers,
}:
let
  inherit (builtins)
    attrNames
    elem
    elemAt
    filter
    head
    isPath
    match
    ;
  inherit (lib) optionalAttrs optionalString splitString;
  inherit (import ./paths.nix { inherit lib; }) clean;

  socket = match "unix:(//)?(([^@/]*)@)?(/[^?]*)([?](.*))?" url;
  network = match "(rediss?)://(([^@/]*)@)?(\\[[^]]*]|[^]:/?#@[]*)(:([0-9]+))?([/?].*)?" url;
  or' = default: value: if value == null then default else value;

  account = or' "" (if socket != null then elemAt socket 2 else elemAt (or' [ "" "" "" ] network) 2);
  query = or' "" (
    if socket != null then
      elemAt socket 5
    else
      elemAt (or' [
        ""
        ""
        ""
        ""
        ""
        ""
        ""
      ] network) 6
  );
  path = clean (elemAt socket 3);
  scheme = elemAt network 0;
  host = elemAt network 3;
  port = or' "6379" (elemAt network 5);
  user = head (splitString ":" account);

  loopback = [
    "localhost"
    "127.0.0.1"
    "[::1]"
    "::1"
  ];
  # Redis listens on each address of `bind`, or on all addresses without one.
  listensOn =
    bind:
    bind == null
    || builtins.any (address: address == host || elem address loopback && elem host loopback) (
      map (lib.removePrefix "-") (splitString " " bind)
    );
  listens =
    server:
    (server.enable or false)
    && (
      if socket != null then
        clean (toString (server.unixSocket or "")) == path
      else
        network != null
        && toString (server.port or 0) == port
        && listensOn (server.bind or "127.0.0.1")
        # Another host's server may have the same port.
        && (elem host loopback || server.bind or null != null)
    );
  found = filter (name: listens servers.${name}) (attrNames servers);
  name = head found;
  secret = servers.${name}.requirePassFile or null;
in
rec {
  # GitLab's module writes the URL to the store, where everybody can read the password.
  hasPassword = lib.hasInfix ":" account || match "(.*&)?password=.*" query != null;
  asNixPaths = lib.optional (found != [ ] && isPath secret) passwordOption;
  # Paths in the store that are strings: nothing copies them there.
  inStore = lib.optional (
    found != [ ]
    && secret != null
    && !isPath secret
    && lib.hasPrefix builtins.storeDir (toString secret)
  ) passwordOption;
  passwordOption = "services.redis.servers.${name}.requirePassFile";
  # Without the number of a database: a save contains all of them.
  address =
    if socket != null then
      "unix://${path}"
    else if network != null then
      "${scheme}://${optionalString (user != "") "${user}@"}${host}${
        optionalString (elemAt network 5 != null) ":${port}"
      }"
    else
      # The program refuses it and says what it accepts.
      url;
  derived =
    if hasPassword then
      [ ]
    else
      [
        (
          {
            name = "main";
            url = address;
          }
          // optionalAttrs (found != [ ]) {
            unit = if name == "" then "redis.service" else "redis-${name}.service";
          }
          // optionalAttrs (found != [ ] && secret != null && !isPath secret && inStore == [ ]) {
            password-file = toString secret;
          }
        )
      ];
}
