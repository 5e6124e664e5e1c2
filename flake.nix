{
  description = "Consistent backups of a self-managed GitLab, as systemd units that give GitLab back";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      each =
        what:
        builtins.listToAttrs (
          map (system: {
            name = system;
            value = what (import ./nix { pkgs = nixpkgs.legacyPackages.${system}; });
          }) systems
        );
    in
    {
      inherit (import ./nix { pkgs = null; }) nixosModules overlays;
      packages = each (ours: ours.packages);
      # Without the slow one: `nix build .#slowTests.SYSTEM.gitlab`.
      checks = each (ours: {
        package = ours.packages.default;
        stand-in = ours.tests.stand-in;
      });
      slowTests = each (ours: { inherit (ours.tests) gitlab; });
    };
}
