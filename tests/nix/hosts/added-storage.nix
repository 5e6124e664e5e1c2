# A second storage beside the default one, which stays where it is.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig.repositories.storages.archive.path = "/srv/archive";
}
