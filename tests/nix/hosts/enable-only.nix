# No settings: a good backup, with warnings about tasks that only an admin can do. The files beside
# the other hosts contain their differences from this one.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
}
