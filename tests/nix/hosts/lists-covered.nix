# A directory that has all derived paths in it.
{ lib, ... }:
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings.files.paths = lib.mkForce [ "/var/gitlab" ];
}
