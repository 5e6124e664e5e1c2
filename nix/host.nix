# Derives settings from the host's own configuration of GitLab, PostgreSQL and Redis.
{
  config,
  lib,
  pkgs,
}:
let
  inherit (lib)
    elem
    filter
    optionals
    subtractLists
    ;
  inherit (import ./host/paths.nix { inherit lib; }) clean covered;
  cfg = config.services.gitlab-backup;
  gitlab = config.services.gitlab;
  registry = config.services.dockerRegistry;
  server = config.services.postgresql;
  ifGitlab = value: if gitlab.enable then value else null;
  kept = subtractLists cfg.omit;

  images = import ./host/registry.nix { inherit lib gitlab registry; };
  data = import ./host/data.nix {
    inherit lib gitlab;
    registryStorage = images.storage;
  };
  secrets = import ./host/secrets.nix { inherit lib gitlab; };
  postgresql = import ./host/postgresql.nix {
    inherit lib gitlab server;
    ownPassword = cfg.settings.postgresql.password-credential or null != null;
    registryDatabase = images.database;
  };
  redis = import ./host/redis.nix {
    inherit lib;
    url = gitlab.redisUrl;
    servers = config.services.redis.servers or { };
  };
  own = clean "${gitlab.statePath}/config";
  configuration = filter (path: !covered data path) (
    [ own ] ++ filter (path: !covered [ own ] path) secrets.files
  );
in
{
  layout = if gitlab.enable then "nixos" else "custom";
  readiness = ifGitlab "unix:${gitlab.statePath}/tmp/sockets/gitlab.socket";
  # A user's definition replaces each of these.
  postgresql = {
    host = ifGitlab postgresql.host;
    port = ifGitlab postgresql.port;
    user = ifGitlab postgresql.user;
    passwordFile = ifGitlab postgresql.passwordFile;
    binDir = ifGitlab "${if server.enable then server.package else pkgs.postgresql}/bin";
  };
  # A user's definitions add to each of these. An element is left out only if `omit` names it.
  lists = {
    writers = optionals gitlab.enable (
      kept (import ./host/writers.nix { inherit lib gitlab registry; })
    );
    paths = optionals gitlab.enable (kept (data ++ configuration));
    configuration = optionals (gitlab.enable && cfg.settings.files.paths != null) (
      filter (path: elem path cfg.settings.files.paths) configuration
    );
    databases = optionals gitlab.enable (kept postgresql.databases);
    redis = optionals gitlab.enable (filter (one: !elem one.url cfg.omit) redis.derived);
  };
  # For ./checks.nix.
  imagesElsewhere = gitlab.enable && gitlab.registry.enable && images.storage == null;
  registryDatabaseElsewhere = ifGitlab postgresql.registryElsewhere;
  secretsAsNixPaths = optionals gitlab.enable (secrets.asNixPaths ++ redis.asNixPaths);
  redisWithPassword = if gitlab.enable && redis.hasPassword then redis.address else null;
  postgresqlPackage = if server.enable then server.package else pkgs.postgresql;
}
