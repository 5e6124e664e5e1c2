# Secrets that GitLab's parts share, as paths in extraConfig; and uploads whose directory cannot be
# derived.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig = {
    gitlab_kas.secret_file = "/run/keys/kas";
    workhorse.secret_file = "/run/keys/workhorse";
    registry.key = "/run/keys/registry";
    uploads.storage_path._secret = "/run/keys/where";
    uploads.base_dir = "";
  };
}
