# The program, with the dependencies of the lock file. ./wrapped.nix and the settings provide the
# programs that it calls.
{
  lib,
  installShellFiles,
  rustPlatform,
  stdenv,
  systemd,
  testers,
  versionCheckHook,
}:
let
  manifest = lib.importTOML ../Cargo.toml;
in
rustPlatform.buildRustPackage {
  pname = manifest.package.name;
  inherit (manifest.package) version;
  # The files that the build reads: other changes do not cause a rebuild.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../askama.toml
      ../src
      ../templates
      ../tests/fixtures
      # Cargo.toml names it.
      ../tests/lab/walks.rs
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;
  # The other tests need systemd, PostgreSQL and Redis: tests/run on Debian, and passthru.tests.
  cargoTestFlags = [ "--lib" ];
  # The tests use fake programs, and systemd-analyze to compare calendars and time spans.
  postPatch = "patchShebangs tests/fixtures";
  nativeCheckInputs = [ systemd ];
  nativeBuildInputs = [ installShellFiles ];
  # The program generates them itself, if the build host can run it.
  postInstall = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    $out/bin/gitlab-backup generate --man man
    installManPage man/*
    installShellCompletion --cmd gitlab-backup \
      --bash <($out/bin/gitlab-backup generate --completion bash) \
      --fish <($out/bin/gitlab-backup generate --completion fish) \
      --zsh <($out/bin/gitlab-backup generate --completion zsh)
  '';
  doInstallCheck = true;
  nativeInstallCheckInputs = [ versionCheckHook ];
  passthru.tests = import ./tests {
    inherit testers;
    module = ./module.nix;
  };
  meta = {
    inherit (manifest.package) description;
    license = [
      lib.licenses.mit
      lib.licenses.asl20
    ];
    # Nobody in nixpkgs' list of maintainers yet.
    maintainers = [ ];
    mainProgram = "gitlab-backup";
    platforms = lib.platforms.linux;
  };
}
