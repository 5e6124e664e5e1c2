# services.gitlab-backup: the settings become the program's configuration, and the program makes its units of it, while the system is
# built. What it refuses fails the build.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib)
    concatLists
    concatStringsSep
    filter
    filterAttrs
    hasPrefix
    hasSuffix
    isAttrs
    isList
    literalExpression
    mapAttrs
    mapAttrs'
    mapAttrsToList
    mkEnableOption
    mkIf
    mkOption
    nameValuePair
    optional
    optionalAttrs
    types
    ;
  cfg = config.services.gitlab-backup;
  gitlab = config.services.gitlab;
  format = pkgs.formats.toml { };
  host = import ./host.nix { inherit config lib pkgs; };

  # Without what is null, and without the tables that are empty then.
  written =
    value:
    if isAttrs value then
      filterAttrs (_: inner: inner != null && inner != { }) (mapAttrs (_: written) value)
    else if isList value then
      map written value
    else
      value;
  settings = written cfg.settings;
  repository = settings.repository or { };
  postgresql = settings.postgresql or { };
  monitoring = settings.monitoring or { };
  files = settings.files or { };
  silences = monitoring ? zabbix || monitoring ? alertmanager || monitoring ? broadcast;
  dumps = postgresql.enable or true;
  elsewhere = dumps && postgresql ? host && !hasPrefix "/" postgresql.host;
  # Nobody in particular asks a PostgreSQL that is reached by name, or by a role of its own.
  serviceUser =
    elsewhere && !(postgresql ? os-user) || dumps && (postgresql.os-user or postgresql.user or "") == "gitlab-backup";

  # `KEY-file` is a secret, but for certificates.
  isSecret =
    name:
    hasSuffix "-file" name
    && !(builtins.elem name [
      "ca-file"
      "tls-ca-file"
      "tls-certificate-file"
    ]);
  secrets =
    at: value:
    if isAttrs value then
      concatLists (
        mapAttrsToList (
          name: inner:
          if isSecret name && !isAttrs inner then
            [
              {
                key = "${at}.${name}";
                path = inner;
              }
            ]
          else
            secrets "${at}.${name}" inner
        ) value
      )
    else if isList value then
      concatLists (map (secrets at) value)
    else
      [ ];
  inStore = filter (secret: builtins.isPath secret.path || hasPrefix builtins.storeDir (toString secret.path)) (
    secrets "services.gitlab-backup.settings" settings
  );

  path = [
    pkgs.coreutils
    pkgs.util-linux
    pkgs.git
    pkgs.btrfs-progs
    pkgs.lvm2
    host.package
    config.systemd.package
    (config.services.redis.package or pkgs.redis)
  ]
  ++ optional (repository.engine or "builtin" == "restic") pkgs.restic
  ++ optional (monitoring ? zabbix) pkgs.zabbix.agent
  ++ optional (config.boot.zfs.enabled or false) config.boot.zfs.package
  ++ cfg.extraPath;

  # A switch to another configuration leaves a run, a restore and above all a resume alone.
  unitSection = ''
    [Unit]
    X-RestartIfChanged=false
    X-StopOnRemoval=false
    X-OnlyManualStart=true
  '';
  dropIn = pkgs.writeText "gitlab-backup-service.conf" ''
    ${unitSection}
    [Service]
    Environment="PATH=${lib.makeBinPath path}"
  '';
  targetDropIn = pkgs.writeText "gitlab-backup-target.conf" unitSection;
  configFile = format.generate "gitlab-backup.toml" settings;
  program = "${cfg.package}/bin/gitlab-backup";
  units = pkgs.runCommand "gitlab-backup-units" { preferLocalBuild = true; } ''
    units=$out/lib/systemd/system
    ${program} --config ${configFile} generate --output "$units" --program ${program}
    for unit in "$units"/*.service; do
      mkdir "$unit.d"
      cp ${dropIn} "$unit.d/nixos.conf"
    done
    for unit in "$units"/*.target; do
      mkdir "$unit.d"
      cp ${targetDropIn} "$unit.d/nixos.conf"
    done
  '';
in
{
  options.services.gitlab-backup = {
    enable = mkEnableOption "consistent backups of GitLab";
    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The program.";
    };
    extraPath = mkOption {
      type = types.listOf types.package;
      default = [ ];
      description = "Packages whose programs the units find besides those that they need themselves: for your own steps.";
    };
    credentials = mkOption {
      type = types.attrsOf types.path;
      default = { };
      example = literalExpression ''{ "gitlab.repository" = ./gitlab.repository.cred; }'';
      description = "Encrypted credentials by their names, as `systemd-creds encrypt --name=NAME` makes them on the host: nobody else can read what is in them, so that they may lie in the store. A `*-credential` of `settings` is given one as `encrypted:NAME`.";
    };
    settings = mkOption {
      type = types.submodule {
        freeformType = format.type;
        options = import ./settings.nix { inherit lib host format; };
      };
      default = { };
      description = "The configuration, one to one with the keys of the TOML that README.md describes; the program checks it while the system is built.";
    };
    build = mkOption {
      type = types.attrsOf types.package;
      readOnly = true;
      internal = true;
      description = "What is built: the configuration, the units, and what is added to each.";
    };
  };

  config = mkIf cfg.enable {
    services.gitlab-backup.build = {
      inherit
        configFile
        dropIn
        targetDropIn
        units
        ;
    };

    assertions = [
      {
        assertion = gitlab.enable || cfg.settings.gitlab.writers or null != null;
        message = "services.gitlab-backup derives its settings from services.gitlab, which is not enabled on this host: enable it, or say in services.gitlab-backup.settings what is to be stopped (gitlab.writers) and saved (files.paths).";
      }
      {
        assertion = gitlab.backup.startAt or [ ] == [ ];
        message = "services.gitlab.backup.startAt makes a gitlab-backup.timer, which is the name of the timer of services.gitlab-backup too: leave services.gitlab.backup.startAt empty. Its backups are of a GitLab that runs, and end when that is stopped.";
      }
      {
        assertion = inStore == [ ];
        message = "Everybody can read the Nix store: give the path of a file on the host, as a string, to ${
          concatStringsSep ", " (map (secret: secret.key) inStore)
        }.";
      }
      {
        assertion = !elsewhere || postgresql ? password-file || postgresql ? password-credential;
        message = "services.gitlab-backup.settings.postgresql.host is another host, which asks for a password: set services.gitlab-backup.settings.postgresql.password-file to the path of a file that has it, or password-credential.";
      }
      {
        assertion = files.paths or [ ] != [ ] || files.path or [ ] != [ ] || files ? command;
        message = "services.gitlab-backup.settings.files.paths is empty: there would be no files to save. Name the directories of repositories, uploads and configuration.";
      }
    ];
    warnings =
      optional (!(settings ? retention)) "services.gitlab-backup keeps every backup for ever: services.gitlab-backup.settings.retention says how many are kept."
      ++ optional (
        gitlab.enable && gitlab.registry.enable && config.services.dockerRegistry.storagePath or null == null
      ) "The container registry keeps its images in a place that services.gitlab-backup does not know: they are not in its backups.";

    systemd.packages = [ units ];
    # NixOS does not read [Install].
    systemd.timers = {
      gitlab-backup.wantedBy = [ "timers.target" ];
    }
    // optionalAttrs (settings ? verify && settings.verify ? calendar) {
      gitlab-backup-verify.wantedBy = [ "timers.target" ];
    }
    // optionalAttrs silences {
      gitlab-backup-unsilence.wantedBy = [ "timers.target" ];
    };
    # By the target, and not by wantedBy: that would give the unit a drop-in with a PATH of its own.
    systemd.targets.multi-user.wants = [ "gitlab-backup-restore-guard.service" ];
    systemd.services.gitlab-backup-secrets = {
      description = "GitLab backup: make the repository's directory and password where there are none";
      wantedBy = [ "multi-user.target" ];
      after = [
        "local-fs.target"
        "remote-fs.target"
      ];
      serviceConfig = {
        Type = "oneshot";
        ExecStart = "${program} --config ${configFile} helper secrets";
        UMask = "0077";
        TimeoutStartSec = "5min";
      };
    };

    environment.systemPackages = [ cfg.package ];
    environment.etc = {
      # Where the program looks when an admin calls it.
      "gitlab-backup/config.toml".source = configFile;
    }
    // mapAttrs' (name: source: nameValuePair "credstore.encrypted/${name}" { inherit source; }) cfg.credentials;
    users.users.gitlab-backup = mkIf serviceUser {
      isSystemUser = true;
      group = "gitlab-backup";
      description = "GitLab backup";
    };
    users.groups.gitlab-backup = mkIf serviceUser { };
    # They own nothing: what comes from others is looked at as the one, and a restore loads it into PostgreSQL as the other.
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
  };
}
