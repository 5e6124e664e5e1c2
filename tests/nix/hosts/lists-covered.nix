# A directory that has all derived paths in it: they are saved with it.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings.files.paths = [ "/var/gitlab" ];
}
