# A Nix path is that of the machine that evaluates: it is not saved, and a warning says so.
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
