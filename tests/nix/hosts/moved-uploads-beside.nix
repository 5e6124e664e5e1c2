# Avatars and the like are beside the other uploads.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig.uploads = {
    storage_path = "/srv/uploaded";
    base_dir = "system";
  };
}
