# A user's settings on every service, in the form of NixOS: backup, verify and restore still work.
{ module }:
{
  name = "gitlab-backup-overrides";
  nodes.machine =
    { lib, ... }:
    let
      # The services of the default configuration.
      names = map (lib.removeSuffix ".service") (
        builtins.filter (lib.hasSuffix ".service") (builtins.attrNames (builtins.readDir ../../systemd))
      );
    in
    {
      imports = [ (import ./shape.nix { inherit module; }) ];
      systemd.services = lib.genAttrs names (_: {
        serviceConfig.IOWeight = 50;
        onFailure = [ "failed@%n.service" ];
        environment.OF_THE_USER = "yes";
      });
    };
  testScript = ''
    ${builtins.readFile ./booted.py}
    for setting in ["IOWeight=50", "OF_THE_USER=yes", "failed@"]:
        machine.succeed(f"systemctl cat gitlab-backup-run.service | grep '{setting}'")
    machine.succeed("echo mine > /var/gitlab/state/repositories/file")
    machine.succeed("systemctl start gitlab-backup.target")
    assert complete_runs() == 1
    gitlab_is_up()
    machine.succeed("systemctl start gitlab-backup-verify.service")
    machine.succeed("rm -r /var/gitlab/state/repositories")
    machine.succeed("gitlab-backup restore --yes")
    machine.succeed("grep mine /var/gitlab/state/repositories/file")
    gitlab_is_up()
  '';
}
