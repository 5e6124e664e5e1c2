# The host adds something to each writer: deriving the writers must not need systemd.services.
{ config, lib, ... }:
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  systemd.services = builtins.listToAttrs (
    map (unit: {
      name = lib.removeSuffix ".service" unit;
      value.serviceConfig.OOMScoreAdjust = -500;
    }) config.services.gitlab-backup.settings.gitlab.writers
  );
}
