//! The commands that messages recommend. On NixOS, the module does what `install` does elsewhere.

use std::path::Path;

use crate::paths;

/// The file that exists on NixOS only. Looked for at the real host, see src/README.md.
const NIXOS: &str = "/etc/NIXOS";

/// Whether this is NixOS.
pub fn is_nixos() -> bool {
    Path::new(NIXOS).exists()
}

/// The command that installs units and accounts.
pub fn install() -> &'static str {
    if is_nixos() { "nixos-rebuild switch" } else { "gitlab-backup install" }
}

/// How to unmask a unit of this program.
pub fn unmask(unit: &str) -> String {
    match is_nixos() {
        true => format!(
            "systemd.services, .timers or .targets has enable = false for it, or it was masked by \
             hand: let it be, and '{}'",
            install()
        ),
        false => format!("'systemctl unmask {unit}', then '{}'", install()),
    }
}

/// The command that starts `timer`. On NixOS, the configuration enables it.
pub fn enable(timer: &str) -> String {
    if is_nixos() {
        format!("'systemctl start {timer}'")
    } else {
        format!("'systemctl enable --now {timer}'")
    }
}

/// The files in which a password is created on this host. Any other file must be provided by the
/// admin: it may be on a tmpfs, or belong to an existing repository.
pub fn passwords() -> &'static [&'static str] {
    if is_nixos() {
        &[paths::PASSWORD_ON_NIXOS]
    } else {
        &[paths::PASSWORD, paths::PASSWORD_ON_NIXOS]
    }
}

/// The command that creates the password of a new repository.
pub fn password() -> &'static str {
    if is_nixos() {
        "systemctl restart gitlab-backup-secrets.service"
    } else {
        "gitlab-backup install"
    }
}
