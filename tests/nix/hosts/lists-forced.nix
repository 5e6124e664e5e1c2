# mkForce is about what users say: what is derived stays.
{ lib, ... }:
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings = {
    gitlab.writers = lib.mkForce [ "gitlab.service" ];
    files.paths = lib.mkForce [ "/srv/extra" ];
    files.configuration = lib.mkForce [ ];
    postgresql.databases = lib.mkForce [ "registry" ];
    redis = lib.mkForce [ ];
  };
}
