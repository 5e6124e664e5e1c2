# Lists that are defined with mkDefault are added to the derived ones, too.
{ lib, ... }:
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings = {
    gitlab.writers = lib.mkDefault [ "gitlab-exporter.service" ];
    files.paths = lib.mkDefault [ "/srv/extra" ];
    files.configuration = lib.mkDefault [ "/srv/extra" ];
    files.exclude = lib.mkDefault [ "*.tmp/" ];
    postgresql.databases = lib.mkDefault [ "registry" ];
    redis = lib.mkDefault [
      {
        name = "cache";
        url = "redis://cache.example.com";
      }
    ];
  };
}
