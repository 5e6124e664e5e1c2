# Each kind of blob in a separate directory, by all of GitLab's names for the key.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig = {
    artifacts.path = "/srv/artifacts";
    ci_secure_files.storage_path = "/srv/secure-files";
    dependency_proxy.storage_path = "/srv/dependency-proxy";
    encrypted_settings.path = "/srv/encrypted-settings";
    external_diffs.storage_path = "/srv/diffs";
    gitlab_ci.builds_path = "/srv/builds";
    lfs.storage_path = "/srv/lfs";
    packages.storage_path = "/srv/packages";
    pages.path = "/srv/pages";
    pages.local_store.path = "/srv/deployments";
    registry.path = "/srv/registry";
    terraform_state.storage_path = "/srv/terraform";
    uploads.storage_path = "/srv/public";
  };
}
