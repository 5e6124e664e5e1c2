# Nothing is said: a good backup, with warnings about what only a person can do. The files beside
# the other hosts say how they differ from this one.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
}
