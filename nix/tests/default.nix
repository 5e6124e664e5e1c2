# Machines that boot: `stand-in` in a minute, `gitlab` with the real GitLab in half an hour and 8 GiB.
{
  pkgs,
  module,
}:
{
  stand-in = pkgs.testers.runNixOSTest (import ./stand-in.nix { inherit module; });
  gitlab = pkgs.testers.runNixOSTest (import ./gitlab.nix { inherit module; });
}
