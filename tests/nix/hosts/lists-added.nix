# A user's lists are added to the derived ones; duplicates count once.
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
