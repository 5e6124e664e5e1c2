# Repositories that another host serves: the build fails, because no backup of this host contains
# them.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig.repositories.storages = {
    default.gitaly_address = "tcp://praefect.example.com:2305";
    near.gitaly_address = "tcp://localhost:8075";
    near.path = "/srv/near";
    own.gitaly_address = "tls://gitlab.example.com:9999";
    own.path = "/srv/own";
  };
  networking.hostName = "gitlab";
}
