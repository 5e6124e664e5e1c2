# Values that are null, and others that are not paths.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig = {
    gitlab_ci = null;
    shared = null;
    gitlab_kas.secret_file = "config/kas";
    uploads.base_dir = "/srv/avatars";
  };
  services.gitlab-backup.settings.files.path = [ { path = "/srv/big"; } ];
  services.gitlab-backup.omit = [ "/srv/big/cache" ];
}
