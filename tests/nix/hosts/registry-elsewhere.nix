# The registry's images are in a bucket.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.registry.enable = true;
  services.dockerRegistry.storagePath = null;
}
