# What becomes of each list that a user defines: it adds to what is derived, whatever its priority.
# So `omit` is the one way to leave out a part of GitLab, and it says what is left out.
{
  lib,
  # What services.gitlab has, and whether there is one.
  derived,
  enabled,
  omit,
  # `settings.files`.
  files,
}:
let
  inherit (builtins)
    attrNames
    attrValues
    concatLists
    foldl'
    replaceStrings
    ;
  inherit (lib)
    any
    elem
    filter
    filterAttrs
    findFirst
    hasPrefix
    optionalAttrs
    subtractLists
    unique
    ;
  inherit (import ./paths.nix { inherit lib; }) clean covered outermost;

  cleaned = map (element: if hasPrefix "/" element then clean element else element);
  omitted = cleaned omit;
  kept = subtractLists omitted;
  saved = if files.paths == null then [ ] else files.paths;

  # Without services.gitlab, null stays null. With it, an empty list is said: the program would
  # derive one of its own.
  add =
    found: value:
    if value == null && !enabled then
      null
    else
      unique (found ++ (if value == null then [ ] else value));
  addPaths = found: value: add found (if value == null then null else cleaned value);

  # Definitions of the same URL are one instance. Where that is the derived one, they add to it.
  addRedis =
    found: value:
    let
      theirs = foldl' into [ ] (map (filterAttrs (_: key: key != null)) value);
      # Where two say different things they stay two, which the program refuses.
      into =
        all: given:
        let
          one = given // optionalAttrs (given ? url) { url = canonical given.url; };
          same =
            other:
            one ? url
            && other.url or null == one.url
            && builtins.all (key: other.${key} or one.${key} == one.${key}) (attrNames one);
        in
        if any same all then
          map (other: if same other then other // one else other) all
        else
          all ++ [ one ];
      urls = map (one: one.url or null) theirs;
      others = filter (other: !any (one: one.url == other.url or null) found) theirs;
      # The program wants a name for each.
      named =
        one:
        if any (other: other.name or null == one.name) others then one // { name = "gitlab"; } else one;
      same = other: findFirst (one: one.url == other.url or null) { } found;
    in
    if value == null then
      if enabled then found else null
    else
      map named (filter (one: !elem one.url urls) found) ++ map (other: same other // other) theirs;
  # As ./redis.nix writes it.
  canonical =
    url:
    (import ./redis.nix {
      inherit lib url;
      servers = { };
    }).address;

  # As a pattern that means this path alone.
  literally = replaceStrings special (map (character: "\\${character}") special);
  special = [
    "*"
    "?"
    "["
    "\\"
  ];

  # Elements of `omit` that leave out nothing.
  idle = filter (
    element:
    !covered saved element
    && !elem element (
      concatLists (attrValues (derived // { redis = map (one: one.url) derived.redis; }))
    )
  ) omitted;
in
{
  inherit idle;
  savedAnyway = filter (element: elem element saved) omitted;
  writers = add (kept derived.writers);
  # A command takes the place of the paths. A path inside another is saved with that.
  paths =
    value:
    let
      all = addPaths (kept (derived.data ++ derived.configuration)) value;
    in
    if files.command != null || all == null then value else outermost all;
  configuration = addPaths (filter (path: elem path saved) derived.configuration);
  databases = add (kept derived.databases);
  redis = addRedis (filter (one: !elem one.url (map canonical omit)) derived.redis);
  # What lies in a saved path.
  exclude =
    value:
    let
      inside = filter (path: covered saved path && !elem path saved) omitted;
    in
    if files.command != null || inside == [ ] then value else add (map literally inside) value;
  # A run refuses to leave out what GitLab is configured with, unless that is said.
  omit =
    value:
    let
      leftOut = filter (element: elem element (derived.data ++ derived.configuration ++ derived.remote)) (
        subtractLists saved omitted
      );
    in
    if files.command != null || leftOut == [ ] then value else add leftOut value;
}
