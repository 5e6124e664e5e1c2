# Every host of ./hosts by its name: the result of `enable-only`, and of each other host how its
# result differs from that. A key that only `enable-only` has is null. A host that is refused has
# only the reasons.
let
  inherit (import ./module.nix { })
    crossPkgs
    lib
    onWith
    pkgs
    told
    ;
  inherit (builtins)
    attrNames
    filter
    isAttrs
    listToAttrs
    mapAttrs
    readDir
    ;
  names = map (lib.removeSuffix ".nix") (filter (lib.hasSuffix ".nix") (attrNames (readDir ./hosts)));
  # Only this host is built on another platform.
  pkgsOf = name: if name == "cross" then crossPkgs else pkgs;

  # `{ a.b = 1; }` is `{ "a.b" = 1; }`, and text is a list of its lines: one line for each value.
  flat =
    at: value:
    if isAttrs value && value != { } then
      lib.concatLists (lib.mapAttrsToList (name: flat "${at}.${name}") value)
    else
      [
        {
          name = at;
          value =
            if builtins.isString value && lib.hasInfix "\n" value then lib.splitString "\n" value else value;
        }
      ];
  flattened = parts: listToAttrs (lib.concatLists (lib.mapAttrsToList flat parts));
  summary =
    name:
    let
      host = told (onWith (pkgsOf name) [ (./hosts + "/${name}.nix") ]);
      built = listToAttrs (
        map (item: {
          inherit (item) name;
          value = item.value or item.text or item.script;
        }) host.build
      );
      asked = {
        inherit (host)
          checks
          etc
          path
          services
          timers
          users
          warnings
          ;
        wants = mapAttrs (_: target: target.wants or [ ]) host.targets;
        settings = built."gitlab-backup.toml" or { };
        units = built.gitlab-backup-units or { };
      };
    in
    if host.failed != [ ] then
      { inherit (host) failed; }
    else if host.build == [ ] then
      lib.filterAttrs (_: value: value != { } && value != [ ]) (flattened asked)
    else if name == "enable-only" then
      flattened asked
    else
      difference (flattened asked);
  base = summary "enable-only";
  difference =
    found:
    lib.filterAttrs (key: value: !(base ? ${key}) || base.${key} != value) found
    // mapAttrs (_: _: null) (lib.filterAttrs (key: _: !(found ? ${key})) base);
in
listToAttrs (
  map (name: {
    inherit name;
    value = summary name;
  }) names
)
