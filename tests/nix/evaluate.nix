# A host, the machines of nix/tests, the package, the flake and the page of the options, all
# evaluated.
{
  host,
  store,
  package,
}:
let
  inherit (import ./module.nix { inherit store package; })
    lib
    on
    pkgs
    told
    ;
  tests = import ../../nix/tests {
    inherit (pkgs) testers;
    module = ../../nix/module.nix;
  };
  flake = (import ../../flake.nix).outputs {
    self = null;
    nixpkgs.legacyPackages = {
      x86_64-linux = pkgs;
      aarch64-linux = pkgs;
    };
  };
  program = import ../../nix/package.nix {
    inherit lib;
    inherit (pkgs) stdenv systemd testers;
    installShellFiles = pkgs.coreutils;
    rustPlatform.buildRustPackage = package: package;
    versionCheckHook = pkgs.coreutils;
  };
  wrapped = import ../../nix/wrapped.nix {
    inherit lib;
    symlinkJoin = package: package;
    makeBinaryWrapper = pkgs.coreutils;
    package = pkgs.coreutils;
    path = [ pkgs.git ];
  };
in
{
  host = told (on [ host ]);
  # The machines of nix/tests are hosts as well.
  machines = builtins.mapAttrs (_: test: {
    inherit (test) name testScript;
    host = told (on [ test.nodes.machine ]);
  }) tests;
  package = {
    inherit (program) pname version postInstall;
    tests = builtins.attrNames program.passthru.tests;
    wrapped = wrapped.postBuild;
  };
  options = import ../../nix/options.nix { inherit lib; };
  flake = {
    outputs = builtins.attrNames flake;
    module = flake.nixosModules.default == ../../nix/module.nix;
    overlay = toString (flake.overlays.default pkgs null).gitlab-backup;
    package = toString flake.packages.x86_64-linux.default;
    checks = builtins.attrNames flake.checks.aarch64-linux;
    slow = flake.legacyPackages.x86_64-linux.tests.gitlab.name;
    formatter = toString flake.formatter.x86_64-linux;
    shells = builtins.attrNames flake.devShells.x86_64-linux;
  };
}
