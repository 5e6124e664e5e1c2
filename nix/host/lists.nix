# Adds each list that a user defines to the derived one, whatever its priority. So `omit` is the only
# way to leave out a part of GitLab, and it names what is left out.
{
  lib,
  # The lists that are derived from services.gitlab, and whether that is enabled.
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
  # The outermost paths: a path inside another is saved with it, unless the outer one is left out.
  data = outermost (kept derived.data);
  own = kept derived.own;
  configuration = filter (path: !covered data path) (
    own ++ filter (path: !covered own path) (kept derived.secrets)
  );

  # Without services.gitlab, null stays null. With it, an empty list is written to the file, because
  # the program would derive one itself if it were missing.
  add = found: value: if value == null && !enabled then null else unique (found ++ or' value);
  addPaths = found: value: add found (if value == null then null else cleaned value);

  # Definitions with the same URL are one instance. If that is the derived one, they add keys to it.
  addRedis =
    found: value:
    let
      theirs = foldl' into [ ] (map (filterAttrs (_: key: key != null)) value);
      # If two contradict each other they stay two, which the program refuses.
      into =
        all: given:
        let
          # A URL with a password stays as it is: the program says what to do about it.
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
      # The program requires a name for each.
      named =
        one:
        if any (other: other.name or null == one.name) others then one // { name = "gitlab"; } else one;
      same = other: findFirst (one: one.url == other.url or null) { } found;
    in
    if value == null then
      if enabled then found else null
    else
      map named (filter (one: !elem one.url urls) found) ++ map (other: same other // other) theirs;
  # In the spelling of ./redis.nix.
  canonical = url: (parsed url).address;
  parsed =
    url:
    import ./redis.nix {
      inherit lib url;
      servers = { };
    };

  # A pattern that matches this path only.
  literally = replaceStrings special (map (character: "\\${character}") special);
  special = [
    "*"
    "?"
    "["
    "\\"
  ];

  # Elements of `omit` that have no effect.
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
  # A command replaces the paths. A path inside another is saved with it.
  paths =
    value:
    let
      all = addPaths (data ++ configuration) value;
    in
    if files.command != null || all == null then value else outermost all;
  configuration = addPaths (filter (path: elem path saved) configuration);
  # The data directories that contain configuration.
  around = filter (
    path: any (one: one != path && covered [ path ] one) (own ++ kept derived.secrets)
  ) data;
  databases = add (kept derived.databases);
  redis = addRedis (filter (one: !elem one.url (map canonical omit)) derived.redis);
  # Elements of `omit` inside a saved path become patterns.
  exclude =
    value:
    let
      inside = filter (path: covered saved path && !elem path saved) omitted;
    in
    if files.command != null || inside == [ ] then value else add (map literally inside) value;
  # A run fails if it lacks a path of GitLab's configuration that is not in `omit`.
  omit =
    value:
    let
      known = derived.data ++ derived.own ++ derived.secrets ++ derived.remote;
      leftOut = filter (element: elem element known) (subtractLists saved omitted);
    in
    if files.command != null || leftOut == [ ] then value else add leftOut value;
}
