# services.gitlab-backup: the settings become the program's configuration, and the program generates
# its units from it while the system is built. So a configuration error fails the build.
{
  config,
  lib,
  modulesPath,
  options,
  pkgs,
  ...
}:
let
  inherit (lib)
    filter
    filterAttrs
    hasPrefix
    isAttrs
    isList
    literalExpression
    mapAttrs
    mapAttrs'
    mkEnableOption
    mkIf
    mkMerge
    mkOption
    mkPackageOption
    nameValuePair
    optional
    optionalAttrs
    types
    ;
  cfg = config.services.gitlab-backup;
  format = pkgs.formats.toml { };
  host = import ./host.nix {
    inherit
      config
      lib
      options
      pkgs
      ;
  };

  # Removes null values, and tables that have only null values. A table that the user has left empty
  # stays, so that the program reports the missing keys.
  written =
    value:
    if isAttrs value then
      filterAttrs (name: inner: inner != null && (inner != { } || value.${name} == { })) (
        mapAttrs (_: written) value
      )
    else if isList value then
      map written value
    else
      value;
  settings = written cfg.settings;
  postgresql = settings.postgresql or { };
  monitored = name: cfg.settings.monitoring.${name} or null != null;
  silences = monitored "zabbix" || monitored "alertmanager" || monitored "broadcast";
  # The names of units depend on no other setting, so that a host can derive the others from
  # `systemd.services`.
  steps = filter (step: step.name != null && step.enable != false) (
    if cfg.settings.step == null then [ ] else cfg.settings.step
  );
  dumps = postgresql.enable or true;
  elsewhere = dumps && postgresql ? host && !hasPrefix "/" postgresql.host;
  inherit (host) isDirectory;
  directory = lib.removePrefix "local:" (settings.repository.location or "/var/backups/gitlab");
  # As systemd reads a path in a unit.
  quoted = path: "\"${builtins.replaceStrings [ "\\" "\"" "%" ] [ "\\\\" "\\\"" "%%" ] path}\"";
  remote = !isDirectory (settings.repository.location or "/");
  # The units need this account if PostgreSQL is reached by network, or by the role of the same name.
  serviceUser =
    elsewhere && !(postgresql ? os-user)
    || dumps && (postgresql.os-user or postgresql.user or "") == "gitlab-backup";

  path = [
    pkgs.coreutils
    pkgs.util-linux
    pkgs.git
    pkgs.btrfs-progs
    pkgs.lvm2
    host.postgresqlPackage
    config.systemd.package
    (config.services.redis.package or pkgs.redis)
  ]
  ++ optional (settings.repository.engine or "builtin" == "restic") pkgs.restic
  # Needed by restic for some locations.
  ++ optional (hasPrefix "sftp:" (settings.repository.location or "")) pkgs.openssh
  ++ optional (hasPrefix "rclone:" (settings.repository.location or "")) pkgs.rclone
  ++ optional (monitored "zabbix") pkgs.zabbix.agent
  ++ optional (config.boot.zfs.enabled or false) config.boot.zfs.package
  ++ cfg.extraPath;

  build = import ./units.nix {
    inherit
      cfg
      lib
      path
      pkgs
      settings
      ;
  };
  checks = import ./checks.nix {
    inherit
      cfg
      config
      host
      lib
      settings
      ;
  };
  idle = seconds: "${build.command} helper idle --wait ${toString seconds}";
  seconds = cfg.waitBeforeSwitch;
in
{
  options.services.gitlab-backup = {
    enable = mkEnableOption "consistent backups of GitLab";
    package =
      # If nixpkgs does not have it, the one beside this module.
      mkPackageOption {
        gitlab-backup = pkgs.gitlab-backup or (pkgs.callPackage ./package.nix { });
      } "gitlab-backup" { };
    extraPath = mkOption {
      type = types.listOf types.package;
      default = [ ];
      example = literalExpression "[ pkgs.rclone ]";
      description = "Packages whose programs the steps and commands of your own find by name.";
    };
    credentials = mkOption {
      type = types.attrsOf types.path;
      default = { };
      example = literalExpression ''{ "gitlab.repository" = ./gitlab.repository.cred; }'';
      description = "Encrypted credentials by their names, as `systemd-creds encrypt --name=NAME` writes them on the host. They may be in the Nix store, because only the host can decrypt them. A `*-credential` of {option}`services.gitlab-backup.settings` refers to one as `encrypted:NAME`.";
    };
    omit = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [
        "/var/gitlab/state/builds"
        "gitlab-pages.service"
      ];
      description = "Derived units, paths, databases, URLs of Redis instances and addresses of remote storages that the backup leaves out, and paths below derived ones.";
    };
    acknowledged = mkOption {
      type = types.listOf (
        types.enum [
          "copy-elsewhere"
          "key-elsewhere"
          "gitlab-backup"
          "registry-images"
          "registry-database"
          "keep-all"
          "configuration-inside"
        ]
      );
      default = [ ];
      example = [ "copy-elsewhere" ];
      description = "Warnings to switch off, because: the repository is copied to another host (`copy-elsewhere`), its password is kept elsewhere (`key-elsewhere`), the backups of {option}`services.gitlab.backup` are made on purpose (`gitlab-backup`), the registry's images (`registry-images`) or its database (`registry-database`) are saved in another way, all runs are kept on purpose (`keep-all`), a restore may replace the configuration in a data directory (`configuration-inside`).";
    };
    waitBeforeSwitch = mkOption {
      type = types.ints.unsigned;
      default = 600;
      example = 3600;
      description = "How many seconds a switch to another configuration waits for the end of a backup or a restore. After that the switch fails before it changes anything. A switch that removes this module stops the backup instead.";
    };
    settings = mkOption {
      type = types.submodule {
        freeformType = format.type;
        options = import ./settings.nix {
          inherit lib host format;
          credentialed = cfg.settings.repository.password-credential or null != null;
        };
      };
      default = { };
      example = literalExpression ''
        {
          schedule.calendar = "*-*-* 03:30:00";
          repository.location = "/srv/backup";
        }
      '';
      description = "The configuration, with the keys of the TOML file that the README describes. The program checks it while the system is built.";
    };
    build = mkOption {
      type = types.attrsOf types.package;
      readOnly = true;
      internal = true;
      description = "The build results: the configuration, the wrapped program, the units, and their drop-ins.";
    };
  };

  meta = {
    # Nobody in nixpkgs' list of maintainers yet.
    maintainers = [ ];
  }
  # A host's manual has the pages of all its modules, and refuses headings that nixpkgs does not
  # list: outside of nixpkgs, this page would fail the build of the system.
  // optionalAttrs (hasPrefix "${toString modulesPath}/" (toString ./module.nix)) {
    doc = ./gitlab-backup.md;
  };

  config = mkIf cfg.enable (mkMerge [
    {
      services.gitlab-backup.build = {
        inherit (build)
          configFile
          dropIn
          secretsDropIn
          units
          wrapped
          ;
      };

      inherit (checks) assertions warnings;

      systemd.packages = [ build.units ];
      # NixOS does not read [Install]. These are `wants` of the targets, because a `wantedBy` of each
      # unit would make NixOS write a drop-in for it, and names of units depend on the settings.
      systemd.targets.timers.wants = [
        "gitlab-backup-run.timer"
      ]
      ++ optional (settings ? verify.calendar) "gitlab-backup-verify.timer"
      ++ optional silences "gitlab-backup-unsilence.timer";
      systemd.targets.multi-user.wants = [ "gitlab-backup-restore-guard.service" ];
      systemd.services =
        builtins.listToAttrs (
          # A step is a program of the user: it finds others only by the PATH of its unit.
          map (step: nameValuePair "gitlab-backup-step-${step.name}" { inherit path; }) steps
        )
        // {
          gitlab-backup-secrets = {
            description = "GitLab backup: create the directory and the password of a new repository";
            wantedBy = [ "multi-user.target" ];
            # The units of sops-nix and agenix that provide secrets, if there are any.
            after = [
              "local-fs.target"
              "remote-fs.target"
              "sops-install-secrets.service"
              "agenix.service"
              "agenix-install-secrets.service"
            ]
            ++ optional remote "network-online.target";
            # The unit asks the other host whether it already has a repository.
            wants = optional remote "network-online.target";
            # The disk with the repository may be mounted late.
            unitConfig = optionalAttrs (!remote) { RequiresMountsFor = quoted directory; };
            serviceConfig = {
              Type = "oneshot";
              # Runs at boot and after a change, not at every switch and every run.
              RemainAfterExit = true;
              ExecStart = "${build.command} helper secrets";
              UMask = "0077";
              TimeoutStartSec = "5min";
            };
          };
          # A switch that removes this module runs no check of it: the checks are those of the new
          # system. But it stops the units that are removed, before systemd forgets their files. The
          # stop of this unit waits for the end of a run, and then stops the run itself: GitLab is
          # started again, and no record of paused units remains.
          gitlab-backup-removal = {
            description = "GitLab backup: let a run end before the units are removed";
            wantedBy = [ "multi-user.target" ];
            # Stopped only when it is removed: not by a change, and not at a shutdown.
            restartIfChanged = false;
            unitConfig = {
              DefaultDependencies = false;
              IgnoreOnIsolate = true;
            };
            serviceConfig = {
              Type = "oneshot";
              RemainAfterExit = true;
              ExecStop = [
                "-${idle seconds}"
                "-${config.systemd.package}/bin/systemctl stop gitlab-backup.target gitlab-backup-restore.target"
                (idle 120)
                # If the module is enabled again, its calendars count from then on.
                "-${pkgs.coreutils}/bin/rm -f /var/lib/gitlab-backup/calendars.json"
              ]
              # Nothing else would end the silence.
              ++ optional silences "-${config.systemd.package}/bin/systemctl start gitlab-backup-unsilence.service";
              TimeoutStopSec = seconds + 300;
            };
          };
        };

      environment.systemPackages = [ build.wrapped ];
      environment.etc = {
        # Where the program looks when an admin runs it.
        "gitlab-backup/config.toml".source = build.configFile;
      }
      // mapAttrs' (
        name: source: nameValuePair "credstore.encrypted/${name}" { inherit source; }
      ) cfg.credentials;
      users.users.gitlab-backup = mkIf serviceUser {
        isSystemUser = true;
        group = "gitlab-backup";
        description = "GitLab backup";
      };
      users.groups.gitlab-backup = mkIf serviceUser { };
      # These own nothing. A verification examines other people's data as the first, and a restore
      # loads it into PostgreSQL as the second.
      users.users.gitlab-backup-sandbox = {
        isSystemUser = true;
        group = "gitlab-backup-sandbox";
        description = "GitLab backup sandbox";
      };
      users.groups.gitlab-backup-sandbox = { };
      users.users.gitlab-backup-loader = mkIf (dumps && !elsewhere) {
        isSystemUser = true;
        group = "gitlab-backup-loader";
        description = "GitLab backup loader";
      };
      users.groups.gitlab-backup-loader = mkIf (dumps && !elsewhere) { };
    }
    # Since NixOS 24.11. A switch starts gitlab.target, which breaks a window and a restore.
    (optionalAttrs (options ? system.preSwitchChecks) {
      system.preSwitchChecks.gitlab-backup = ''
        case "''${2-}" in
          switch | test) ${idle seconds} ;;
          check) ${idle 0} ;;
        esac
      '';
    })
  ]);
}
