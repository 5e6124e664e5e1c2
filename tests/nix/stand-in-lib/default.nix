# A stand-in for nixpkgs' lib, for where there is no nixpkgs: as much of the module system as nix/ uses, written for these tests and
# nothing else. It takes types less exactly than the real one and knows no other priorities than those of mkDefault and mkForce.
# NIXPKGS_LIB names the real one.
let
  inherit (builtins)
    all
    any
    attrNames
    concatLists
    concatMap
    concatStringsSep
    elem
    filter
    foldl'
    head
    isAttrs
    isBool
    isFunction
    isInt
    isList
    isPath
    isString
    length
    listToAttrs
    map
    mapAttrs
    removeAttrs
    stringLength
    substring
    ;

  # Text, lists, sets.
  hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
  hasSuffix =
    suffix: text:
    stringLength text >= stringLength suffix && substring (stringLength text - stringLength suffix) (-1) text == suffix;
  removePrefix = prefix: text: if hasPrefix prefix text then substring (stringLength prefix) (-1) text else text;
  optional = condition: value: if condition then [ value ] else [ ];
  optionals = condition: values: if condition then values else [ ];
  optionalAttrs = condition: values: if condition then values else { };
  filterAttrs = keep: set: removeAttrs set (filter (name: !keep name set.${name}) (attrNames set));
  nameValuePair = name: value: { inherit name value; };
  mapAttrs' = pair: set: listToAttrs (mapAttrsToList pair set);
  mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
  unique = foldl' (seen: value: if elem value seen then seen else seen ++ [ value ]) [ ];
  fixedWidthString =
    width: filler: text:
    if stringLength text >= width then text else fixedWidthString width filler "${filler}${text}";

  # Properties of definitions.
  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkMerge = contents: {
    _type = "merge";
    inherit contents;
  };
  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };
  typeOf = value: if isAttrs value then value._type or "" else "";
  # The sets that a definition is made of, with its properties pushed to their members: what they are called must not depend on a condition.
  pushed =
    value:
    {
      merge = concatMap pushed value.contents;
      "if" = map (mapAttrs (_: mkIf value.condition)) (pushed value.content);
      override = map (mapAttrs (_: mkOverride value.priority)) (pushed value.content);
    }
    .${typeOf value} or [ value ];
  # The values of a definition, each with its priority.
  discharged =
    priority: value:
    {
      merge = concatMap (discharged priority) value.contents;
      "if" = optionals value.condition (discharged priority value.content);
      override = discharged value.priority value.content;
    }
    .${typeOf value} or [ { inherit priority value; } ];
  merged =
    at: type: definitions:
    let
      every = concatMap (discharged 100) definitions;
      strongest = foldl' (least: each: if each.priority < least then each.priority else least) 10000 every;
      values = map (each: each.value) (filter (each: each.priority == strongest) every);
      wrong = filter (value: !type.check value) values;
    in
    if every == [ ] then
      null
    else if wrong != [ ] then
      throw "The option `${concatStringsSep "." at}' is not of type ${type.name}."
    else
      { value = type.merge at values; };

  # Options.
  mkOption = option: option // { _type = "option"; };
  isOption = value: typeOf value == "option";
  # The values of `options`, given these sets of definitions; what is no option goes to `free`, the freeform type, or is refused.
  valuesOf =
    at: free: options: sets:
    let
      of = name: concatMap (set: optional (set ? ${name}) set.${name}) sets;
      known =
        name: option:
        let
          here = at ++ [ name ];
          found = merged here option.type (of name);
          default = merged here option.type [ option.default ];
        in
        if !isOption option then
          valuesOf here free option (concatMap pushed (of name))
        else if found != null then
          found.value
        else if option ? default then
          default.value
        else
          throw "The option `${concatStringsSep "." here}' is used but not defined.";
      names = unique (concatMap attrNames sets);
      strangers = filter (name: !(options ? ${name})) names;
      unknown =
        name:
        let
          found = merged (at ++ [ name ]) free (of name);
        in
        if free == null then
          throw "The option `${concatStringsSep "." (at ++ [ name ])}' does not exist."
        else if found == null then
          [ ]
        else
          [
            {
              inherit name;
              value = found.value;
            }
          ];
    in
    mapAttrs known options // listToAttrs (concatMap unknown strangers);
  mergedOptions = foldl' (
    one: other:
    one
    // mapAttrs (
      name: value: if one ? ${name} && !isOption value then mergedOptions [ one.${name} value ] else value
    ) other
  ) { };
  evalModules =
    {
      modules,
      specialArgs ? { },
    }:
    let
      arguments = {
        inherit lib config options;
      }
      // specialArgs;
      load =
        module:
        if isPath module || isString module then
          load (import module)
        else if isFunction module then
          module arguments
        else
          module;
      all' = concatMap (
        module:
        let
          loaded = load module;
        in
        all' (loaded.imports or [ ]) ++ [ loaded ]
      );
      loaded = all' modules;
      options = mergedOptions (map (module: module.options or { }) loaded);
      definitions =
        module:
        if module ? config || module ? options then module.config or { } else removeAttrs module [ "imports" ];
      config = valuesOf [ ] null options (concatMap (module: pushed (definitions module)) loaded);
    in
    {
      inherit config options;
    };

  # Types.
  simple = name: check: {
    inherit name check;
    merge = at: values: if all (value: value == head values) values then head values else throw "The option `${concatStringsSep "." at}' has several values.";
    getSubOptions = _: { };
    description = name;
  };
  # The members of sets, each merged with those of its name.
  each =
    type: at: sets:
    filterAttrs (_: found: found != null) (
      mapAttrs (name: _: merged (at ++ [ name ]) type (concatMap (set: optional (set ? ${name}) set.${name}) sets)) (
        foldl' (one: other: one // other) { } sets
      )
    );
  types = {
    str = simple "str" isString;
    bool = simple "bool" isBool;
    int = simple "int" isInt;
    path = simple "path" (value: isPath value || (isString value && hasPrefix "/" value));
    package = simple "package" (value: isAttrs value && value ? outPath);
    enum =
      values:
      simple "enum" (value: elem value values)
      // {
        functor.payload = { inherit values; };
      };
    anything = simple "anything" (_: true) // {
      merge =
        at: values:
        if all (value: isAttrs value && !(value ? outPath)) values then
          mapAttrs (_: found: found.value) (each types.anything at values)
        else if all isList values then
          concatLists values
        else
          (simple "anything" (_: true)).merge at values;
    };
    nullOr =
      inner:
      inner
      // {
        name = "nullOr";
        check = value: value == null || inner.check value;
        merge = at: values: if all (value: value == null) values then null else inner.merge at (filter (value: value != null) values);
        nestedTypes.elemType = inner;
      };
    listOf =
      inner:
      simple "listOf" (value: isList value)
      // {
        merge = at: values: map (value: (merged at inner [ value ]).value) (concatLists values);
        getSubOptions = inner.getSubOptions;
        nestedTypes.elemType = inner;
      };
    attrsOf =
      inner:
      simple "attrsOf" isAttrs
      // {
        merge = at: values: mapAttrs (_: found: found.value) (each inner at values);
        nestedTypes.elemType = inner;
      };
    submodule =
      module:
      simple "submodule" isAttrs
      // {
        merge = at: values: valuesOf at module.freeformType.nestedTypes.elemType module.options (concatMap pushed values);
        getSubOptions = _: module.options;
      };
  };

  lib = {
    inherit
      all
      any
      concatLists
      concatMap
      concatStringsSep
      elem
      evalModules
      filter
      filterAttrs
      fixedWidthString
      hasPrefix
      hasSuffix
      isAttrs
      isList
      mapAttrs
      mapAttrs'
      mapAttrsToList
      mkIf
      mkMerge
      mkOption
      nameValuePair
      optional
      optionalAttrs
      optionals
      removePrefix
      types
      unique
      ;
    mkDefault = mkOverride 1000;
    mkForce = mkOverride 50;
    mkEnableOption =
      what:
      mkOption {
        type = types.bool;
        default = false;
        description = "Whether to enable ${what}.";
      };
    literalExpression = text: { inherit text; };
    makeBinPath = packages: concatStringsSep ":" (map (package: "${package}/bin") packages);
    licenses = {
      mit = "MIT";
      asl20 = "Apache-2.0";
    };
    platforms.linux = [ ];
  };
in
lib
