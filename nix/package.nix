# The program, from the lock file. What it calls is found by ./wrapped.nix and the settings.
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
  # What the build reads; a change to anything else is no reason for a new one.
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
  # The rest wants a systemd, a PostgreSQL and a Redis: tests/run on Debian, and passthru.tests.
  cargoTestFlags = [ "--lib" ];
  # Fakes of programs, and systemd-analyze, with which calendars and time spans are compared.
  postPatch = "patchShebangs tests/fixtures";
  nativeCheckInputs = [ systemd ];
  nativeBuildInputs = [ installShellFiles ];
  # The program writes them itself, where it can run.
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
