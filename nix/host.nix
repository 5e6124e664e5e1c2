# What the host's own configuration tells of GitLab, PostgreSQL and Redis: the defaults of the settings.
{
  config,
  lib,
  pkgs,
}:
let
  inherit (lib)
    any
    elem
    filter
    hasPrefix
    optional
    optionals
    removePrefix
    unique
    ;
  cfg = config.services.gitlab-backup;
  gitlab = config.services.gitlab;
  server = config.services.postgresql;
  redis = config.services.redis.servers.gitlab or { };
  registry = config.services.dockerRegistry;
  withRegistry = gitlab.registry.enable && registry.storagePath or null != null;
  unit = name: optional (config.systemd.services ? ${name}) "${name}.service";
  ifGitlab = value: if gitlab.enable then value else null;
  local = gitlab.databaseHost == "";
  package = if server.enable then server.package else pkgs.postgresql;
  within = outer: path: path == outer || hasPrefix "${outer}/" path;
  apart = paths: path: !any (outer: within outer path) paths;
  # Secrets that GitLab is given, and that its database cannot be read without; what lies in the store is not worth a backup.
  secrets = unique (
    filter (path: path != null && !hasPrefix builtins.storeDir path) (
      map (path: if path == null then null else toString path) (
        builtins.attrValues gitlab.secrets
        ++ [
          gitlab.databasePasswordFile
          gitlab.initialRootPasswordFile
        ]
      )
    )
  );
  state = map (name: "${gitlab.statePath}/${name}");
  data = state [
    "repositories"
    "uploads"
    "builds"
    "shared"
    "custom_hooks"
    "home"
  ];
  pages = gitlab.pages.settings.pages-root or null;
  outside =
    optional withRegistry (toString registry.storagePath) ++ optionals (gitlab.pages.enable && pages != null) [ pages ];
  own = state [ "config" ];
  configuration = own ++ filter (apart (data ++ outside ++ own)) secrets;
in
{
  layout = if gitlab.enable then "nixos" else "custom";
  # Without the target, and without the oneshots that write the configuration: they stay up.
  writers = ifGitlab (
    [
      "gitlab.service"
      "gitlab-sidekiq.service"
      "gitlab-workhorse.service"
    ]
    ++ unit "gitlab-mailroom"
    ++ optional gitlab.pages.enable "gitlab-pages.service"
    ++ optionals gitlab.registry.enable (
      [ "docker-registry.service" ]
      # Starts the registry again when it is done.
      ++ unit "docker-registry-garbage-collect"
      ++ optional (registry.enableGarbageCollect or false) "docker-registry-garbage-collect.timer"
    )
    ++ [ "gitaly.service" ]
  );
  readiness = ifGitlab "unix:${gitlab.statePath}/tmp/sockets/gitlab.socket";
  postgresql =
    if !gitlab.enable then
      {
        host = null;
        port = null;
        user = null;
        databases = null;
        passwordFile = null;
        binDir = null;
      }
    else
      {
        host = if local then "/run/postgresql" else gitlab.databaseHost;
        # `settings.port` on newer releases.
        port = if local then server.settings.port or server.port or 5432 else gitlab.extraDatabaseConfig.port or 5432;
        user = if local then server.superUser or "postgres" else gitlab.databaseUsername;
        databases = [ gitlab.databaseName ];
        passwordFile =
          if local || gitlab.databasePasswordFile == null || cfg.settings.postgresql.password-credential or null != null then
            null
          else
            toString gitlab.databasePasswordFile;
        binDir = "${package}/bin";
      };
  redis = ifGitlab [
    (
      {
        name = "main";
        url =
          if hasPrefix "unix:/" gitlab.redisUrl && !hasPrefix "unix://" gitlab.redisUrl then
            "unix://${removePrefix "unix:" gitlab.redisUrl}"
          else
            gitlab.redisUrl;
      }
      // lib.optionalAttrs (redis.enable or false) { unit = "redis-gitlab.service"; }
      // lib.optionalAttrs (redis.requirePassFile or null != null) { password-file = toString redis.requirePassFile; }
    )
  ];
  paths = ifGitlab (data ++ filter (apart data) outside ++ configuration);
  configuration = ifGitlab (filter (path: elem path (cfg.settings.files.paths or [ ])) configuration);
  inherit package;
}
