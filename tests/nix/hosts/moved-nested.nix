# Paths inside others: only the outermost are listed, as the program requires.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig = {
    shared.path = "/srv/gitlab/";
    lfs.storage_path = "/srv/gitlab/lfs";
    repositories.storages = {
      default.path = "/srv/gitlab/git";
      second.path = "/srv/gitlab-two";
    };
  };
}
