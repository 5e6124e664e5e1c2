# A key without its own option: the Nix path is found nevertheless.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings.monitoring.webhook = {
    url = "https://hook.example.com";
    token-file = ./minimal.nix;
    ca-file = "/nix/store/x-certificate";
  };
}
