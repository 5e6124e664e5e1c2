# A setting may depend on the services of the host.
{ config, lib, ... }:
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  systemd.services.fast-disk.enable = true;
  services.gitlab-backup.settings.verify.calendar = lib.mkIf (
    config.systemd.services ? fast-disk && !(config.systemd.timers ? fast-disk)
  ) "weekly";
}
