# A program of the admin replaces the paths.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings.files.command = [
    "/run/current-system/sw/bin/own-backup"
    "--all"
  ];
}
