# The newer name of the key.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig.artifacts.storage_path = "/srv/artifacts";
}
