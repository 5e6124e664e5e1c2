# What a user lists adds to what is derived; what is listed twice counts once.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings = {
    gitlab.writers = [
      "gitlab-exporter.service"
      "gitaly.service"
    ];
    files.paths = [ "/srv/extra" ];
    files.configuration = [ "/srv/extra" ];
    postgresql.databases = [ "registry" ];
    redis = [
      {
        name = "cache";
        url = "redis://cache.example.com";
      }
    ];
  };
}
