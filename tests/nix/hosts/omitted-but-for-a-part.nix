# An omitted directory, except for a part of it.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.omit = [ "/var/gitlab/state/shared" ];
  services.gitlab-backup.settings.files.paths = [ "/var/gitlab/state/shared/lfs-objects" ];
}
