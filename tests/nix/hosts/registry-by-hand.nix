# A registry that GitLab's module does not set up, but that GitLab's settings name.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig.registry = {
    enabled = true;
    host = "registry.example.com";
    key = "/var/keys/registry.key";
  };
  services.dockerRegistry = {
    enable = true;
    enableGarbageCollect = true;
    storagePath = "/srv/registry";
  };
}
