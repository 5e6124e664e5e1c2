# A storage of another host has no path here.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig.repositories.storages.remote.gitaly_address = "tcp://gitaly:8075";
}
