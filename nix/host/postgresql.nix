# The server and the database of GitLab. `extraDatabaseConfig` wins, as in GitLab's module.
{
  lib,
  gitlab,
  server,
  # Whether the settings name a password of their own.
  ownPassword,
}:
let
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
in
{
  host = if database.host == "" then "/run/postgresql" else database.host;
  port =
    database.port or (
      # `settings.port` since NixOS 24.05.
      if local then server.settings.port or server.port or 5432 else 5432
    );
  user = if local then server.superUser or "postgres" else database.username;
  databases = [ database.database ];
  passwordFile =
    if local || ownPassword || password == null || builtins.isPath password then
      null
    else
      toString password;
}
