# A directory that contains the configuration, which a restore would replace with the rest.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings.files.paths = [ "/var/gitlab" ];
}
