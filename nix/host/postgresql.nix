# The server and the database of GitLab. `extraDatabaseConfig` wins, as in GitLab's module.
{
  lib,
  gitlab,
  server,
  # Whether the settings name a password of their own.
  ownPassword,
  # Null if the registry has none.
  registryDatabase,
}:
let
  inherit (builtins) isPath;
  database = {
    host = gitlab.databaseHost;
    username = gitlab.databaseUsername;
    database = gitlab.databaseName;
  }
  // gitlab.extraDatabaseConfig;
  # Empty or a directory: a socket, through which the server's own role is let in without a
  # password.
  local = database.host == "" || lib.hasPrefix "/" database.host;
  password = gitlab.databasePasswordFile;
  port = number (
    database.port or (
      # `settings.port` since NixOS 24.05.
      if local then server.settings.port or server.port or 5432 else 5432
    )
  );
  # PostgreSQL and Rails take it as a string too.
  number =
    value:
    if builtins.isString value && builtins.match "[1-9][0-9]*" value != null then
      lib.toInt value
    else
      value;
  # By its socket or by network. Elsewhere, the role of GitLab might not be let in.
  registryHost = registryDatabase.host or "";
  registryName = registryDatabase.dbname or "registry";
  beside =
    local
    && (
      registryHost == ""
      || lib.hasPrefix "/" registryHost
      || lib.elem registryHost [
        "localhost"
        "127.0.0.1"
        "::1"
      ]
    )
    && toString (registryDatabase.port or 5432) == toString port;
  wanted = !local && !ownPassword && password != null;
  # Of a Nix path there is a warning, as GitLab copies it there.
  inStore = wanted && !isPath password && lib.hasPrefix builtins.storeDir (toString password);
in
{
  host = if database.host == "" then "/run/postgresql" else database.host;
  inherit port;
  user = if local then server.superUser or "postgres" else database.username;
  databases = [
    database.database
  ]
  ++ lib.optional (registryDatabase != null && beside) registryName;
  # What is not dumped unless a user names it.
  registryElsewhere = if registryDatabase != null && !beside then registryName else null;
  passwordFile = if wanted && !isPath password && !inStore then toString password else null;
  inherit inStore;
}
