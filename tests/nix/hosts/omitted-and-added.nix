# What is left out, and named again: it is saved, and that is told.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.omit = [ "/var/gitlab/state/builds" ];
  services.gitlab-backup.settings.files.paths = [ "/var/gitlab/state/builds" ];
}
