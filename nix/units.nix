# Builds the configuration, the program as units call it, and the units.
#
# The program generates the units, and `systemd.packages` installs them. So they are the same as on
# every other host, and a configuration error fails the build. Units declared in Nix would be a
# second definition of each unit. `systemd.services.gitlab-backup-NAME` works nevertheless: NixOS
# writes it as the drop-in overrides.conf, which systemd reads after those created here.
{
  cfg,
  lib,
  pkgs,
  settings,
  path,
}:
let
  configFile = (pkgs.formats.toml { }).generate "gitlab-backup.toml" settings;
  wrapped = pkgs.callPackage ./wrapped.nix {
    inherit (cfg) package;
    inherit path;
  };
  program = "${wrapped}/bin/gitlab-backup";
  command = "${program} --config ${configFile}";
  # If the host has another platform, the build cannot run the host's program.
  generator =
    if pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform then
      cfg.package
    else
      pkgs.buildPackages.gitlab-backup or (pkgs.buildPackages.callPackage ./package.nix { });

  # Keeps switch-to-configuration from touching the units. Without X-OnlyManualStart it restarts a
  # service or a timer that has changed, such as the deadline of an open window, and starts an active
  # target again. X-StopOnRemoval=false leaves units that the new system does not have to
  # gitlab-backup-removal.service, which lets a run end first. The timers with a calendar, and the
  # service that checks it, are stopped and started like any others: a timer that is only reloaded
  # starts a run that its new calendar has missed, and a removed one would be a failed unit.
  dropIn = pkgs.writeText "gitlab-backup.conf" ''
    [Unit]
    X-OnlyManualStart=true
    X-StopOnRemoval=false
  '';
  # At boot a timer may start a run before the secrets exist.
  secretsDropIn = pkgs.writeText "gitlab-backup-secrets.conf" ''
    [Unit]
    Wants=gitlab-backup-secrets.service
    After=gitlab-backup-secrets.service
  '';
  # systemd reads drop-ins in the order of their names: `nixos*.conf` come before `overrides.conf`,
  # where NixOS writes what a user sets.
  units = pkgs.runCommand "gitlab-backup-units" { preferLocalBuild = true; } ''
    units=$out/lib/systemd/system
    ${generator}/bin/gitlab-backup --config ${configFile} generate --output "$units" --program ${program}
    for unit in "$units"/*.service "$units"/*.target "$units"/*.timer; do
      case "$unit" in
        */gitlab-backup-run.timer | */gitlab-backup-verify.timer) continue ;;
        */gitlab-backup-calendar.service) continue ;;
        */gitlab-backup-unsilence.timer) continue ;;
      esac
      mkdir "$unit.d"
      cp ${dropIn} "$unit.d/nixos.conf"
      if grep -q '^LoadCredential' "$unit"; then
        cp ${secretsDropIn} "$unit.d/nixos-secrets.conf"
      fi
    done
  '';
in
{
  inherit
    command
    configFile
    dropIn
    secretsDropIn
    units
    wrapped
    ;
}
