# The registry has its own configuration, which the module does not read: images may be elsewhere.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.registry.enable = true;
  services.dockerRegistry.configFile = "/etc/registry.yml";
}
