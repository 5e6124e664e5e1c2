# The registry's metadata are in a database of the same server, and its images where its own
# configuration says.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.registry.enable = true;
  services.dockerRegistry = {
    storagePath = null;
    extraConfig = {
      storage.filesystem.rootdirectory = "/srv/images";
      database = {
        enabled = true;
        host = "localhost";
        dbname = "images";
      };
    };
  };
}
