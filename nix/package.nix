# The program, from the lock file. Wrapped with nothing: what it calls is found by the units' PATH and the settings.
{
  lib,
  rustPlatform,
}:
let
  manifest = builtins.fromTOML (builtins.readFile ../Cargo.toml);
  # What the build reads; a change to anything else is no reason for a new one.
  wanted = [
    "Cargo.toml"
    "Cargo.lock"
    "askama.toml"
    "src"
    "templates"
  ];
  root = toString ../.;
  isWanted = path: _: builtins.any (name: path == "${root}/${name}" || lib.hasPrefix "${root}/${name}/" path) wanted;
in
rustPlatform.buildRustPackage {
  pname = manifest.package.name;
  version = manifest.package.version;
  src = builtins.path {
    path = ../.;
    name = "gitlab-backup-source";
    filter = isWanted;
  };
  cargoLock.lockFile = ../Cargo.lock;
  # They want a systemd, a PostgreSQL and more: tests/run on Debian.
  doCheck = false;
  meta = {
    description = manifest.package.description;
    license = [
      lib.licenses.mit
      lib.licenses.asl20
    ];
    mainProgram = "gitlab-backup";
    platforms = lib.platforms.linux;
  };
}
