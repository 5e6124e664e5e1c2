# There is no flake.lock: a lock is what `nix flake lock` writes where it reaches GitHub. Run it,
# and commit what it wrote.
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
          map (
            system:
            let
              pkgs = nixpkgs.legacyPackages.${system};
            in
            {
              name = system;
              value = what pkgs (import ./nix { inherit pkgs; });
            }
          ) systems
        );
    in
    {
      inherit (import ./nix { pkgs = null; }) nixosModules overlays;
      packages = each (_: ours: ours.packages);
      # Machines that boot in a minute.
      checks = each (
        _: ours: {
          package = ours.packages.default;
          inherit (ours.tests)
            moved
            overrides
            stand-in
            switch
            ;
        }
      );
      # With the slow one: `nix build .#tests.gitlab`.
      legacyPackages = each (_: ours: { inherit (ours) tests; });
      formatter = each (pkgs: _: pkgs.nixfmt-tree);
      devShells = each (
        pkgs: ours: {
          default = pkgs.mkShell {
            inputsFrom = [ ours.packages.default ];
            packages = [
              pkgs.clippy
              pkgs.nixfmt-tree
              pkgs.rust-analyzer
              pkgs.rustfmt
            ];
          };
        }
      );
    };
}
