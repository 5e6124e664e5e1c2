# The module on a host, without NixOS: what it builds, in order, and what it asks of the system. `pkgs` is a stand-in; `lib` is nixpkgs'
# own with NIXPKGS_LIB.
{
  host,
  store,
  package,
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
        "postgresql"
        "redis"
        "restic"
        "systemd"
        "util-linux"
      ]
  );
  pkgs = paths // {
    zabbix.agent = derivation "zabbix-agent" { };
    callPackage = file: _: derivation "gitlab-backup" { inherit file; } // { outPath = package; };
    formats.toml = _: {
      type = lib.types.attrsOf lib.types.anything // {
        description = "TOML value";
      };
      generate = name: value: derivation name { inherit value; };
    };
    writeText = name: text: derivation name { inherit text; };
    runCommand = name: _: script: derivation name { inherit script; };
    testers.runNixOSTest = test: test;
  };
  on =
    modules:
    (lib.evalModules {
      modules = [
        ../../nix/module.nix
        ./host-options.nix
      ]
      ++ modules;
      specialArgs = { inherit pkgs; };
    }).config;
  told =
    config:
    let
      inherit (config.services.gitlab-backup) build;
      failed = map (assertion: assertion.message) (builtins.filter (assertion: !assertion.assertion) config.assertions);
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
    in
    {
      inherit failed;
      inherit (config) warnings;
      # NixOS builds nothing then either.
      build =
        if failed != [ ] then
          [ ]
        else
          map kept [
            build.configFile
            build.dropIn
            build.targetDropIn
            build.units
          ];
      inherit (config.systemd) services timers targets;
      packages = map toString config.systemd.packages;
      etc = builtins.mapAttrs (_: file: toString file.source) config.environment.etc;
      users = builtins.attrNames config.users.users;
    };
  tests = import ../../nix/tests {
    inherit pkgs;
    module = ../../nix/module.nix;
  };
  flake = (import ../../flake.nix).outputs {
    self = null;
    nixpkgs.legacyPackages = {
      x86_64-linux = pkgs;
      aarch64-linux = pkgs;
    };
  };
in
{
  host = told (on [ host ]);
  # The machines of nix/tests are hosts as well.
  machines = builtins.mapAttrs (_: test: {
    inherit (test) name testScript;
    host = told (on [ test.nodes.machine ]);
  }) tests;
  package =
    let
      program = import ../../nix/package.nix {
        inherit lib;
        rustPlatform.buildRustPackage = package: package;
      };
    in
    {
      inherit (program) pname version;
    };
  options = import ../../nix/options.nix { inherit lib; };
  flake = {
    outputs = builtins.attrNames flake;
    module = flake.nixosModules.default == ../../nix/module.nix;
    overlay = toString (flake.overlays.default pkgs null).gitlab-backup;
    package = toString flake.packages.x86_64-linux.default;
    checks = builtins.attrNames flake.checks.aarch64-linux;
    slow = flake.slowTests.x86_64-linux.gitlab.name;
  };
}
