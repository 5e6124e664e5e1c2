# A restore would replace the configuration without being asked to.
{ lib, ... }:
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings.files.configuration = lib.mkForce [ ];
}
