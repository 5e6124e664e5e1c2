# A program of the admin's own takes the place of the paths.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings.files.command = [
    "/run/current-system/sw/bin/own-backup"
    "--all"
  ];
}
