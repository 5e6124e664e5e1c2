# A data directory that contains the configuration: it is saved once.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig.shared.path = "/var/gitlab";
}
