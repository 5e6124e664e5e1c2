# Derives settings from the host's own configuration of GitLab, PostgreSQL and Redis.
{
  config,
  lib,
  options,
  pkgs,
}:
let
  inherit (lib) hasPrefix optionals;
  inherit (import ./host/paths.nix { inherit lib; }) clean;
  cfg = config.services.gitlab-backup;
  gitlab = config.services.gitlab;
  registry = config.services.dockerRegistry;
  server = config.services.postgresql;
  ifGitlab = value: if gitlab.enable then value else null;
  redisOmitted = builtins.elem redis.address cfg.omit || builtins.elem gitlab.redisUrl cfg.omit;

  images = import ./host/registry.nix {
    inherit gitlab registry;
    # Whether the user has set a configuration file, which is not read here. Older releases of
    # nixpkgs do not have the option.
    configured = (options.services.dockerRegistry.configFile.highestPrio or unsaid) < unsaid;
  };
  # The priority of an option's default.
  unsaid = (lib.mkOptionDefault null).priority;
  storages = import ./host/storages.nix {
    inherit lib gitlab;
    names = [
      config.networking.hostName or ""
      config.networking.fqdnOrHostName or ""
    ];
  };
  data = import ./host/data.nix {
    inherit lib gitlab;
    registryStorage = images.storage;
  };
  secrets = import ./host/secrets.nix {
    inherit lib gitlab;
    withRegistry = images.enabled;
  };
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
  own = [ (clean "${gitlab.statePath}/config") ];
  # With the extensions that the host adds.
  postgresqlPackage =
    if server.enable then server.finalPackage or server.package else pkgs.postgresql;
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
    binDir = ifGitlab "${postgresqlPackage}/bin";
  };
  lists = import ./host/lists.nix {
    inherit lib;
    inherit (cfg) omit;
    inherit (cfg.settings) files;
    enabled = gitlab.enable;
    derived = lib.mapAttrs (_: optionals gitlab.enable) {
      inherit data;
      inherit (postgresql) databases;
      remote = map (storage: storage.address) storages.remote;
      writers = import ./host/writers.nix {
        inherit lib gitlab registry;
        withRegistry = images.enabled;
      };
      inherit own;
      secrets = secrets.files;
      redis = redis.derived;
      # Also that of an instance which is not derived because its URL has a password.
      urls = [ redis.address ];
    };
  };
  # Whether a repository is a directory of this host; restic has two spellings.
  isDirectory = location: hasPrefix "/" location || hasPrefix "local:" location;
  # For ./checks.nix.
  remoteStorages = optionals gitlab.enable storages.remote;
  imagesElsewhere = gitlab.enable && images.elsewhere;
  registryDatabaseElsewhere = ifGitlab postgresql.registryElsewhere;
  secretsAsNixPaths = optionals gitlab.enable (secrets.asNixPaths ++ redis.asNixPaths);
  secretsInStore = optionals gitlab.enable (
    lib.optional postgresql.inStore "services.gitlab.databasePasswordFile" ++ redis.inStore
  );
  inherit data;
  configuration = optionals gitlab.enable (own ++ secrets.files);
  redisWithPassword =
    if gitlab.enable && redis.hasPassword && !redisOmitted then redis.address else null;
  inherit postgresqlPackage;
}
