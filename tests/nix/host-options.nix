# The options of NixOS that the module reads and sets, of any type; with the defaults that NixOS's modules of GitLab, PostgreSQL and Redis
# give them.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
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
  gitlab = config.services.gitlab;
in
{
  options = {
    assertions = list;
    warnings = list;
    systemd = {
      package = value pkgs.systemd;
      packages = list;
      services = set;
      timers = set;
      targets = set;
      tmpfiles.rules = list;
    };
    environment = {
      systemPackages = list;
      etc = set;
    };
    users.users = mkOption {
      type = types.attrsOf types.anything;
      default = { };
    };
    users.groups = mkOption {
      type = types.attrsOf types.anything;
      default = { };
    };
    virtualisation = set;
    services.gitlab = {
      enable = value false;
      statePath = value "/var/gitlab/state";
      backup.startAt = value [ ];
      databaseHost = value "";
      databaseName = value "gitlab";
      databaseUsername = value "gitlab";
      databasePasswordFile = value null;
      extraDatabaseConfig = set;
      initialRootPasswordFile = value null;
      redisUrl = value "unix:/run/gitlab/redis.sock";
      registry.enable = value false;
      pages.enable = value false;
      pages.settings.pages-root = value "${gitlab.statePath}/shared/pages";
      secrets = set;
    };
    services.dockerRegistry = {
      storagePath = value "/var/lib/docker-registry";
      enableGarbageCollect = value false;
    };
    services.postgresql = {
      enable = value gitlab.enable;
      package = value pkgs.postgresql;
      settings.port = value 5432;
      superUser = value "postgres";
      ensureDatabases = list;
    };
    services.redis = {
      package = value pkgs.redis;
      servers.gitlab = {
        enable = value gitlab.enable;
        requirePassFile = value null;
      };
    };
  };
}
