# Steps find the programs of extraPath, and one that is disabled has no unit.
{ pkgs, ... }:
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup = {
    extraPath = [ pkgs.restic ];
    settings.step = [
      {
        name = "offsite";
        stage = "finish";
        command = [ "/run/current-system/sw/bin/offsite" ];
      }
      {
        name = "off";
        stage = "finish";
        command = [ "/run/current-system/sw/bin/off" ];
        enable = false;
      }
    ];
  };
}
