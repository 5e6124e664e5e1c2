# Three settings of a user on every service of the default configuration: NixOS writes them as
# drop-ins that come after those of the module.
{ lib, ... }:
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  systemd.services =
    lib.genAttrs
      (map (lib.removeSuffix ".service") (
        builtins.filter (lib.hasSuffix ".service") (builtins.attrNames (builtins.readDir ../../../systemd))
      ))
      (_: {
        serviceConfig.IOWeight = 50;
        onFailure = [ "mail@%n.service" ];
        environment.RESTIC_CACHE_DIR = "/var/cache/restic";
      });
}
