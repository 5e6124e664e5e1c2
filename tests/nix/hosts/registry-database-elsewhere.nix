# The registry's metadata are on another host: a warning says that they are not saved.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.registry.enable = true;
  services.dockerRegistry.extraConfig.database = {
    enabled = "prefer";
    host = "db.example.com";
    dbname = "images";
  };
}
