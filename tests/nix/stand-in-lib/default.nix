# A stand-in for nixpkgs' lib on machines without nixpkgs: only the parts of the module system that
# nix/ uses, written for these tests. It checks types less strictly than the real one, and knows
# only the priorities of mkOptionDefault, mkDefault and mkForce. NIXPKGS_LIB selects the real one.
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
    stringLength text >= stringLength suffix
    && substring (stringLength text - stringLength suffix) (-1) text == suffix;
  removePrefix =
    prefix: text: if hasPrefix prefix text then substring (stringLength prefix) (-1) text else text;
  removeSuffix =
    suffix: text:
    if hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;
  hasInfix =
    infix: text:
    any (at: substring at (stringLength infix) text == infix) (
      builtins.genList (at: at) (stringLength text + 1)
    );
  splitString =
    separator: text:
    filter isString (builtins.split (builtins.replaceStrings [ "." ] [ "[.]" ] separator) text);
  optionalString = condition: text: if condition then text else "";
  optional = condition: value: if condition then [ value ] else [ ];
  optionals = condition: values: if condition then values else [ ];
  optionalAttrs = condition: values: if condition then values else { };
  filterAttrs = keep: set: removeAttrs set (filter (name: !keep name set.${name}) (attrNames set));
  nameValuePair = name: value: { inherit name value; };
  mapAttrs' = pair: set: listToAttrs (mapAttrsToList pair set);
  mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
  unique = foldl' (seen: value: if elem value seen then seen else seen ++ [ value ]) [ ];
  subtractLists = unwanted: filter (value: !elem value unwanted);
  recursiveUpdate =
    one: other:
    one
    // mapAttrs (
      name: value:
      if isAttrs value && isAttrs (one.${name} or null) then recursiveUpdate one.${name} value else value
    ) other;
  genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
  reversed = foldl' (others: value: [ value ] ++ others) [ ];
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
  mkOrder = order: content: {
    _type = "order";
    inherit order content;
  };
  typeOf = value: if isAttrs value then value._type or "" else "";
  # The sets of a definition, with its properties pushed down to their members: the names of members
  # must not depend on a condition.
  pushed =
    value:
    {
      merge = concatMap pushed value.contents;
      "if" = map (mapAttrs (_: mkIf value.condition)) (pushed value.content);
      override = map (mapAttrs (_: mkOverride value.priority)) (pushed value.content);
      order = map (mapAttrs (_: mkOrder value.order)) (pushed value.content);
    }
    .${typeOf value} or [ value ];
  # The values of a definition, each with its priority and its order.
  discharged =
    known: value:
    {
      merge = concatMap (discharged known) value.contents;
      "if" = optionals value.condition (discharged known value.content);
      override = discharged (known // { inherit (value) priority; }) value.content;
      order = discharged (known // { inherit (value) order; }) value.content;
    }
    .${typeOf value} or [ (known // { inherit value; }) ];
  plain = {
    priority = 100;
    order = 1000;
  };
  strongest = foldl' (least: each: if each.priority < least then each.priority else least);
  mkOptionDefault = mkOverride 1500;
  letters = text: builtins.genList (at: substring at 1 text) (stringLength text);
  merged =
    at: type: definitions:
    let
      every = concatMap (discharged plain) definitions;
      values = map (each: each.value) (
        builtins.sort (one: other: one.order < other.order) (
          filter (each: each.priority == strongest 10000 every) every
        )
      );
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
  # The values of `options`, given these sets of definitions; names that are no options go to
  # `free`, the freeform type, or are refused.
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
          apply = option.apply or (value: value);
        in
        if !isOption option then
          valuesOf here free option (concatMap pushed (of name))
        else if found != null then
          apply found.value
        else if option ? default then
          apply default.value
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
  # The options with the priority of what defines them.
  prioritised =
    options: sets:
    mapAttrs (
      name: option:
      let
        of = concatMap (set: optional (set ? ${name}) set.${name}) sets;
      in
      if isOption option then
        option
        // {
          highestPrio = strongest (mkOptionDefault null).priority (concatMap (discharged plain) of);
        }
      else
        prioritised option (concatMap pushed of)
    ) options;
  mergedOptions = foldl' (
    one: other:
    one
    // mapAttrs (
      name: value:
      if one ? ${name} && !isOption value then
        mergedOptions [
          one.${name}
          value
        ]
      else
        value
    ) other
  ) { };
  evalModules =
    {
      modules,
      specialArgs ? { },
    }:
    let
      arguments = {
        inherit lib config;
        options = prioritised options sets;
      }
      // specialArgs;
      load = module: if isFunction module then module arguments else module;
      # Each module, with the path of its file if it has one: each file counts once.
      all' = concatMap (
        module:
        let
          isFile = isPath module || isString module;
          loaded = load (if isFile then import module else module);
        in
        all' (loaded.imports or [ ])
        ++ [
          {
            key = if isFile then toString module else null;
            inherit loaded;
          }
        ]
      );
      # The real lib merges the definitions of the last module first.
      loaded = reversed (
        map (each: each.loaded) (
          foldl' (
            seen: each:
            if each.key != null && any (other: other.key == each.key) seen then seen else seen ++ [ each ]
          ) [ ] (all' modules)
        )
      );
      options = mergedOptions (map (module: module.options or { }) loaded);
      definitions =
        module:
        if module ? config || module ? options then
          mkMerge [
            (module.config or { })
            (optionalAttrs (module ? meta) { inherit (module) meta; })
          ]
        else
          removeAttrs module [ "imports" ];
      sets = concatMap (module: pushed (definitions module)) loaded;
      config = valuesOf [ ] null options sets;
    in
    {
      inherit config options;
    };

  # Types.
  simple = name: check: {
    inherit name check;
    merge =
      at: values:
      if all (value: value == head values) values then
        head values
      else
        throw "The option `${concatStringsSep "." at}' has several values.";
    getSubOptions = _: { };
    description = name;
  };
  # The members of sets, each merged with those of its name.
  each =
    type: at: sets:
    filterAttrs (_: found: found != null) (
      mapAttrs (
        name: _: merged (at ++ [ name ]) type (concatMap (set: optional (set ? ${name}) set.${name}) sets)
      ) (foldl' (one: other: one // other) { } sets)
    );
  types = {
    str = simple "str" isString;
    bool = simple "bool" isBool;
    int = simple "int" isInt;
    port = simple "unsignedInt16" (value: isInt value && value >= 0 && value <= 65535);
    ints = {
      unsigned = simple "unsignedInt" (value: isInt value && value >= 0);
      positive = simple "positiveInt" (value: isInt value && value > 0);
    };
    # Only what is used here.
    pathWith =
      { inStore, absolute }:
      simple "path" (
        value:
        isString value && hasPrefix "/" value == absolute && hasPrefix builtins.storeDir value == inStore
      );
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
        merge =
          at: values:
          if all (value: value == null) values then
            null
          else
            inner.merge at (filter (value: value != null) values);
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
        merge =
          at: values:
          valuesOf at (module.freeformType.nestedTypes.elemType or null) module.options (
            concatMap pushed values
          );
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
      genAttrs
      hasInfix
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
      mkOptionDefault
      nameValuePair
      optional
      optionalAttrs
      optionalString
      optionals
      recursiveUpdate
      removePrefix
      removeSuffix
      splitString
      subtractLists
      types
      unique
      ;
    findFirst =
      test: default: list:
      head (filter test list ++ [ default ]);
    toInt = builtins.fromJSON;
    toLower = builtins.replaceStrings (letters "ABCDEFGHIJKLMNOPQRSTUVWXYZ") (
      letters "abcdefghijklmnopqrstuvwxyz"
    );
    mkDefault = mkOverride 1000;
    mkForce = mkOverride 50;
    mkBefore = mkOrder 500;
    mkAfter = mkOrder 1500;
    mkPackageOption =
      packages: name: _:
      mkOption {
        type = types.package;
        default = packages.${name};
        defaultText.text = "pkgs.${name}";
        description = "The ${name} package to use.";
      };
    importTOML = file: builtins.fromTOML (builtins.readFile file);
    getName = package: package.pname or package.name;
    fileset = {
      unions = files: files;
      toSource = source: source;
    };
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
