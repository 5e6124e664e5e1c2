# Without flakes: import this. If you need the module only, nixpkgs is not evaluated.
{
  pkgs ? import <nixpkgs> { },
}:
let
  module = ./module.nix;
in
{
  nixosModules.default = module;
  overlays.default = final: _: { gitlab-backup = final.callPackage ./package.nix { }; };
  packages.default = pkgs.callPackage ./package.nix { };
  # Slow: `gitlab` builds and boots a real GitLab.
  tests = import ./tests {
    inherit (pkgs) testers;
    inherit module;
  };
  # The page ./options.md.
  options = import ./options.nix { inherit (pkgs) lib; };
}
