# Machines that boot: `gitlab` with the real GitLab in half an hour and 8 GiB, the others in a
# minute with a stand-in. Each has the form of the tests in nixos/tests and takes the module.
{
  testers,
  module,
}:
builtins.mapAttrs (_: test: testers.runNixOSTest (import test { inherit module; })) {
  gitlab = ./gitlab.nix;
  moved = ./moved.nix;
  overrides = ./overrides.nix;
  stand-in = ./stand-in.nix;
  switch = ./switch.nix;
}
