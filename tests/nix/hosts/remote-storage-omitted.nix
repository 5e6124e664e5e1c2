# Repositories that another host serves, and that are saved in another way.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig.repositories.storages.default.gitaly_address =
    "tcp://praefect.example.com:2305";
  services.gitlab-backup.omit = [ "tcp://praefect.example.com:2305" ];
}
