# The options of NixOS that the module reads and sets, of any type, with the defaults that NixOS'
# modules of GitLab, the registry, PostgreSQL and Redis give them. README.md lists the differences.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkDefault mkOption types;
  value =
    default:
    mkOption {
      type = types.anything;
      inherit default;
    };
  set = value { };
  list = mkOption {
    type = types.listOf types.anything;
    default = [ ];
  };
  sets = mkOption {
    type = types.attrsOf types.anything;
    default = { };
  };
  gitlab = config.services.gitlab;
in
{
  options = {
    assertions = list;
    warnings = list;
    meta = set;
    system.preSwitchChecks = sets;
    system.switch.enable = value false;
    specialisation = set;
    systemd = {
      package = value pkgs.systemd;
      packages = list;
      services = sets;
      timers = sets;
      targets = sets;
      tmpfiles.rules = list;
    };
    environment = {
      systemPackages = list;
      etc = sets;
    };
    users.users = sets;
    users.groups = sets;
    virtualisation = set;
    networking.hostName = value "nixos";
    services.gitlab = {
      enable = value false;
      statePath = value "/var/gitlab/state";
      backup = {
        startAt = value [ ];
        path = value "${gitlab.statePath}/backup";
        keepTime = mkOption {
          type = types.anything;
          default = 0;
          apply = hours: hours * 3600;
        };
        skip = mkOption {
          type = types.anything;
          default = [ ];
          apply = skipped: if builtins.isString skipped then skipped else lib.concatStringsSep "," skipped;
        };
        uploadOptions = set;
      };
      databaseHost = value "";
      databaseName = value "gitlab";
      databaseUsername = value "gitlab";
      databasePasswordFile = value null;
      extraDatabaseConfig = set;
      extraConfig = set;
      extraEnv = set;
      initialRootPasswordFile = value null;
      redisUrl = value "unix:/run/gitlab/redis.sock";
      registry.enable = value false;
      # Without a default in GitLab's module.
      registry.keyFile = value null;
      registry.certFile = value null;
      pages.enable = value false;
      pages.settings = mkOption {
        type = types.submodule {
          freeformType = types.attrsOf types.anything;
          options.pages-root = value "${
            gitlab.extraConfig.shared.path or "${gitlab.statePath}/shared"
          }/pages";
        };
        default = { };
      };
      smtp.enable = value false;
      smtp.passwordFile = value null;
      secrets = set;
      workhorse.config = set;
    };
    services.dockerRegistry = {
      enable = value gitlab.registry.enable;
      configFile = value "/nix/store/x-docker-registry-config.yml";
      storagePath = value "/var/lib/docker-registry";
      enableGarbageCollect = value false;
      extraConfig = set;
    };
    services.postgresql = {
      enable = value (gitlab.enable && gitlab.databaseHost == "");
      package = value pkgs.postgresql;
      finalPackage = value config.services.postgresql.package;
      settings.port = value 5432;
      superUser = value "postgres";
      ensureDatabases = list;
    };
    services.redis = {
      package = value pkgs.redis;
      servers = mkOption {
        type = types.attrsOf (
          types.submodule {
            options = {
              enable = value false;
              unixSocket = value null;
              port = value 0;
              bind = value "127.0.0.1";
              requirePassFile = value null;
            };
          }
        );
        default = { };
      };
    };
  };
  config.services.redis.servers = lib.mkIf gitlab.enable {
    gitlab.enable = mkDefault true;
    gitlab.unixSocket = mkDefault "/run/gitlab/redis.sock";
  };
}
