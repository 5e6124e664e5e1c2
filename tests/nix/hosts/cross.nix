# A host of another platform: the program of the machine that builds it generates the units.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
}
