# The module on a host, without NixOS: what it builds, in order, and what it configures on the
# system. `pkgs` is a stand-in; `lib` is nixpkgs' own with NIXPKGS_LIB.
{
  # Where the store is, and where the program's bin/ is.
  store ? "/nix/store",
  package ? "/usr/local",
}:
let
  given = builtins.getEnv "NIXPKGS_LIB";
  lib = import (if given == "" then ./stand-in-lib else given);
  derivation =
    name: more:
    {
      inherit name;
      type = "derivation";
      outPath = "${store}/stand-in-${name}";
    }
    // more;
  # Packages of which only the path matters.
  paths = builtins.listToAttrs (
    map
      (name: {
        inherit name;
        value = derivation name { };
      })
      [
        "btrfs-progs"
        "coreutils"
        "git"
        "lvm2"
        "nixfmt-tree"
        "openssh"
        "postgresql"
        "redis"
        "restic"
        "systemd"
        "util-linux"
      ]
  );
  tools = {
    zabbix.agent = derivation "zabbix-agent" { };
    # The wrapper is the program itself: the tests run it with their own PATH.
    callPackage =
      file: arguments: derivation "gitlab-backup" { inherit file arguments; } // { outPath = package; };
    formats.json = _: { generate = name: value: derivation name { inherit value; }; };
    formats.toml = _: {
      type = lib.types.attrsOf lib.types.anything // {
        description = "TOML value";
      };
      generate = name: value: derivation name { inherit value; };
    };
    writeText = name: text: derivation name { inherit text; };
    runCommand =
      name: _: script:
      derivation name { inherit script; };
    testers.runNixOSTest = test: test;
    mkShell = shell: shell;
    runtimeShell = "/bin/sh";
    stdenv = {
      buildPlatform.canExecute = _: true;
      hostPlatform = null;
    };
  };
  pkgs = paths // tools;
  # A host of another platform than the one that builds it.
  crossPkgs = pkgs // {
    stdenv = pkgs.stdenv // {
      buildPlatform.canExecute = _: false;
    };
    buildPackages.callPackage = _: _: derivation "gitlab-backup-of-the-build-platform" { };
  };
  onWith =
    pkgs: modules:
    (lib.evalModules {
      modules = [
        ../../nix/module.nix
        ./host-options.nix
      ]
      ++ modules;
      specialArgs = {
        inherit pkgs;
        modulesPath = "/nixpkgs/nixos/modules";
      };
    }).config;
  on = onWith pkgs;
  kept =
    derivation:
    builtins.intersectAttrs {
      name = null;
      value = null;
      text = null;
      script = null;
    } derivation
    // {
      path = derivation.outPath;
    };
  told =
    config:
    let
      inherit (config.services.gitlab-backup) build;
      failed = map (assertion: assertion.message) (
        builtins.filter (assertion: !assertion.assertion) config.assertions
      );
    in
    {
      inherit failed;
      inherit (config) warnings;
      # NixOS would not build anything in these cases either.
      build =
        if failed != [ ] || !config.services.gitlab-backup.enable then
          [ ]
        else
          map kept [
            build.configFile
            build.dropIn
            build.secretsDropIn
            build.units
          ];
      # The packages on the wrapper's PATH.
      path = lib.optionals config.services.gitlab-backup.enable (
        map toString build.wrapped.arguments.path
      );
      checks = config.system.preSwitchChecks;
      inherit (config.systemd) services timers targets;
      packages = map toString config.systemd.packages;
      etc = builtins.mapAttrs (_: file: toString file.source) config.environment.etc;
      users = builtins.attrNames config.users.users;
    };
in
{
  inherit
    crossPkgs
    lib
    on
    onWith
    pkgs
    told
    ;
}
