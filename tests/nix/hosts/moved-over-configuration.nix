# A data directory that has the configuration in it: it is saved once.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig.shared.path = "/var/gitlab";
}
