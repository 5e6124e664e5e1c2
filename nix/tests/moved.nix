# A storage that GitLab's own configuration names and the settings do not: a run refuses to start,
# until the settings name it as well.
{ module }:
{
  name = "gitlab-backup-moved";
  nodes.machine =
    { pkgs, ... }:
    let
      # As GitLab's module writes it.
      gitlab = (pkgs.formats.json { }).generate "gitlab.yml" {
        production = {
          repositories.storages = {
            default.path = "/var/gitlab/state/repositories";
            archive.path = "/srv/archive";
          };
          shared.path = "/var/gitlab/state/repositories/shared";
        };
      };
    in
    {
      imports = [ (import ./shape.nix { inherit module; }) ];
      system.switch.enable = true;
      systemd.tmpfiles.rules = [
        "d /srv/archive - - - -"
        "C /var/gitlab/state/config/gitlab.yml - - - - ${gitlab}"
      ];
      specialisation.covered.configuration = {
        services.gitlab-backup.settings.files.paths = [ "/srv/archive" ];
      };
    };
  testScript = ''
    ${builtins.readFile ./booted.py}
    machine.succeed("echo mine > /srv/archive/file")
    machine.fail("systemctl start gitlab-backup.target")
    machine.succeed("journalctl -u 'gitlab-backup*' | grep /srv/archive")
    assert complete_runs() == 0
    gitlab_is_up()
    machine.succeed("/run/booted-system/specialisation/covered/bin/switch-to-configuration test")
    machine.succeed("systemctl start gitlab-backup.target")
    assert complete_runs() == 1
    machine.succeed("rm -r /srv/archive")
    machine.succeed("gitlab-backup restore --yes")
    machine.succeed("grep mine /srv/archive/file")
  '';
}
