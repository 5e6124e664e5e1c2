# A Nix path refers to the machine that evaluates: it is not saved, with a warning.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab = {
    databasePasswordFile = ./minimal.nix;
    secrets.dbFile = ./minimal.nix;
    secrets.otpFile = /nix/store/x-in-a-flake;
  };
  services.redis.servers.gitlab.requirePassFile = ./minimal.nix;
}
