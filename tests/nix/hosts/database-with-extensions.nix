# The package that runs is another than the one that is named.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.postgresql.finalPackage = "/nix/store/x-postgresql-and-plugins";
}
