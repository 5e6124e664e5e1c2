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
  or' = value: if value == null then [ ] else value;
  saved =
    or' files.paths ++ cleaned (filter (path: path != null) (map (one: one.path) (or' files.path)));
  # The outermost: what lies in another is saved with that, unless that is left out.
  data = outermost (kept derived.data);
  own = kept derived.own;
  configuration = filter (path: !covered data path) (
    own ++ filter (path: !covered own path) (kept derived.secrets)
  );

  # Without services.gitlab, null stays null. With it, an empty list is said: the program would
  # derive one of its own.
  add = found: value: if value == null && !enabled then null else unique (found ++ or' value);
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
          # The program says what to do about a password.
          one =
            given
            // optionalAttrs (given ? url && !(parsed given.url).hasPassword) { url = canonical given.url; };
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
  canonical = url: (parsed url).address;
  parsed =
    url:
    import ./redis.nix {
      inherit lib url;
      servers = { };
    };

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
    && !elem element (concatLists (attrValues (removeAttrs derived [ "redis" ])))
    && !elem (canonical element) derived.urls
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
      all = addPaths (data ++ configuration) value;
    in
    if files.command != null || all == null then value else outermost all;
  configuration = addPaths (filter (path: elem path saved) configuration);
  # The data that have the configuration in them.
  around = filter (
    path: any (one: one != path && covered [ path ] one) (own ++ kept derived.secrets)
  ) data;
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
      known = derived.data ++ derived.own ++ derived.secrets ++ derived.remote;
      leftOut = filter (element: elem element known) (subtractLists saved omitted);
    in
    if files.command != null || leftOut == [ ] then value else add leftOut value;
}
