# An omitted directory contains others that are derived separately: they are saved.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig = {
    shared.path = "/srv/gitlab";
    repositories.storages.default.path = "/srv/gitlab/repositories";
  };
  services.gitlab.secrets.dbFile = "/srv/gitlab/secrets/db";
  services.gitlab-backup.omit = [ "/srv/gitlab" ];
}
