# The registry, with the units that can start it again.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.registry.enable = true;
  services.dockerRegistry.enableGarbageCollect = true;
  services.dockerRegistry.storagePath = "/srv/registry";
}
