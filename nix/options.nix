# Generates nix/options.md from the options:
#   nix-instantiate --eval --json nix/options.nix --arg lib 'import <nixpkgs/lib>'
{ lib }:
let
  inherit (builtins)
    attrNames
    concatMap
    concatStringsSep
    filter
    toJSON
    ;
  # A host that only has the module's options.
  evaluated = lib.evalModules {
    modules = [
      ./module.nix
      {
        options = {
          services.gitlab = ignored;
          assertions = ignored;
          meta = ignored;
          warnings = ignored;
          systemd = ignored;
          environment = ignored;
          users = ignored;
        };
      }
    ];
    specialArgs = {
      modulesPath = "/nixpkgs/nixos/modules";
      pkgs.formats.toml = _: {
        type = lib.types.attrsOf lib.types.anything // {
          description = "TOML value";
        };
      };
    };
  };
  ignored = lib.mkOption { type = lib.types.anything; };
  isOption = value: value._type or "" == "option";
  name = at: concatStringsSep "." at;
  shown =
    option:
    if option ? defaultText then
      option.defaultText.text or option.defaultText
    else if !(option ? default) then
      "none"
    else if option.default == null then
      ""
    else
      toJSON option.default;
  typeOf =
    type:
    {
      nullOr = typeOf type.nestedTypes.elemType;
      listOf = "list: ${typeOf type.nestedTypes.elemType}";
      attrsOf = "table: ${typeOf type.nestedTypes.elemType}";
      path = "path";
      enum = concatStringsSep ", " (map toJSON (type.functor.payload.values or type.functor.payload));
      str = "string";
      bool = "boolean";
      unsignedInt = "number";
      positiveInt = "number above 0";
      unsignedInt16 = "port";
      package = "package";
      submodule = "table";
    }
    .${type.name};
  cell = builtins.replaceStrings [ "|" "{manpage}" "{option}" "{file}" ] [ "\\|" "" "" "" ];
  entry =
    at: option:
    "| ${
      builtins.concatStringsSep " | " (
        [ "`${name at}`" ]
        ++ map cell [
          (typeOf option.type)
          (shown option)
          (option.description.text or option.description)
        ]
      )
    } |";
  below =
    at: options:
    concatMap (
      key:
      let
        option = options.${key};
      in
      if isOption option then
        if option.internal or false then
          [ ]
        else
          [ (entry (at ++ [ key ]) option) ]
          ++ below (at ++ [ key ]) (option.type.getSubOptions (at ++ [ key ]))
      else
        below (at ++ [ key ]) option
    ) (filter (key: key != "_module" && key != "_freeformOptions") (attrNames options));
in
concatStringsSep "\n" (
  [
    "# The options of the NixOS module"
    ""
    "Generated from nix/module.nix by nix/options.nix: edits are lost. All names are below"
    "`services.gitlab-backup`. If the default is empty, the key is left out of the file and the program's"
    "own default applies. README.md, \"Configuration\", describes the keys of `settings`."
    ""
    "| option | type | default | is |"
    "|---|---|---|---|"
  ]
  ++ below [ ] evaluated.options.services.gitlab-backup
  ++ [ "" ]
)
