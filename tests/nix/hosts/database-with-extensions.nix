# The package that runs is not the one that is configured.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.postgresql.finalPackage = "/nix/store/x-postgresql-and-plugins";
}
