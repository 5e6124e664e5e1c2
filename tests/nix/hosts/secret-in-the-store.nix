# A key without an option of its own: the Nix path is found all the same.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings.monitoring.webhook = {
    url = "https://hook.example.com";
    token-file = ./minimal.nix;
    ca-file = "/nix/store/x-certificate";
  };
}
