# The registry has a configuration of its own, which nobody reads here: images may be elsewhere.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.registry.enable = true;
  services.dockerRegistry.configFile = "/etc/registry.yml";
}
