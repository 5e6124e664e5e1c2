# Switches to other configurations while GitLab is down for a backup.
{ module }:
{
  name = "gitlab-backup-switch";
  nodes.machine =
    { lib, pkgs, ... }:
    {
      imports = [ (import ./shape.nix { inherit module; }) ];
      system.switch.enable = true;
      services.gitlab-backup = {
        waitBeforeSwitch = 60;
        # The window stays open as long as the test wants.
        settings.step = [
          {
            name = "hold";
            stage = "window";
            command = [
              "${pkgs.runtimeShell}"
              "-c"
              "while [ -e /var/hold ]; do sleep 0.2; done"
            ];
          }
        ];
      };
      specialisation = {
        impatient.configuration.services.gitlab-backup.waitBeforeSwitch = lib.mkForce 1;
        # Everything that a switch would restart has changed.
        other.configuration = {
          services.gitlab-backup.settings = {
            schedule.calendar = "*-*-* 04:30:00";
            gitlab.max-downtime = "20min";
          };
          systemd.services.gitaly.environment.CHANGED = "yes";
        };
        without.configuration.services.gitlab-backup.enable = lib.mkForce false;
      };
    };
  testScript = builtins.readFile ./booted.py + builtins.readFile ./switch.py;
}
