# mkForce overrides only the definitions of users: the derived values stay.
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
