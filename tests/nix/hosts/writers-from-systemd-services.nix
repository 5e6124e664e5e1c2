# The host configures the writers that it finds in systemd.services.
{ config, lib, ... }:
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  systemd.services.gitlab-exporter.serviceConfig.ExecStart = "/run/current-system/sw/bin/exporter";
  services.gitlab-backup.settings.gitlab.writers = map (name: "${name}.service") (
    builtins.filter (lib.hasSuffix "-exporter") (builtins.attrNames config.systemd.services)
  );
}
