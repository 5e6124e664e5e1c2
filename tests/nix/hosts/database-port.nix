# The local server has another port, which names its socket.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.postgresql.settings.port = 5433;
}
