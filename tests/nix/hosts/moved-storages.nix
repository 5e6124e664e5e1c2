# Repositories on several disks, one of them instead of the default.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig.repositories.storages = {
    default.path = "/srv/git/default";
    archive.path = "/srv/archive/";
    large.path = "/mnt/large//git";
  };
}
