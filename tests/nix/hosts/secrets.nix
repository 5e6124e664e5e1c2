# Secrets as files: saved, unless they are in the store or below what is saved.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab = {
    initialRootPasswordFile = "/run/keys/root";
    secrets = {
      secretFile = "/run/keys/secret";
      otpFile = "/run/keys/secret";
      dbFile = "/nix/store/x-in-the-store";
      jwsFile = "/var/gitlab/state/config/jws";
      activeRecordSaltFile = null;
    };
    smtp = {
      enable = true;
      passwordFile = "/run/keys/smtp";
    };
    extraConfig.omniauth.providers = [ { args.client_options.secret._secret = "/run/keys/oidc"; } ];
    workhorse.config.object_storage.s3.aws_secret_access_key._secret = "/run/keys/s3";
    backup.uploadOptions.connection.aws_secret_access_key._secret = "/run/keys/upload";
    pages.enable = true;
    pages.settings.auth-secret._secret = "/run/keys/pages";
    registry = {
      enable = true;
      keyFile = "/run/keys/registry";
      certFile = "/var/lib/registry/certificate";
    };
  };
}
