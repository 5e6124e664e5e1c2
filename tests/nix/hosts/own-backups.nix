# services.gitlab.backup is set: a warning explains what corresponds to it, and nothing else
# changes.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.backup = {
    startAt = "03:00";
    path = "/srv/tar";
    keepTime = 48;
    skip = [
      "artifacts"
      "lfs"
    ];
    uploadOptions.remote_directory = "backups";
  };
}
