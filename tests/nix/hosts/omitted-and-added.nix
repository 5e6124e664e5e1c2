# A path that is omitted and also listed: it is saved, with a warning.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.omit = [ "/var/gitlab/state/builds" ];
  services.gitlab-backup.settings.files.paths = [ "/var/gitlab/state/builds" ];
}
