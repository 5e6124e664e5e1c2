//! What brings this host up to its configuration, for messages. On NixOS the module does what
//! `install` does elsewhere.

use std::path::Path;

use crate::paths;

/// By which NixOS marks itself.
const NIXOS: &str = "/etc/NIXOS";

/// Whether this is NixOS.
pub fn is_nixos() -> bool {
    Path::new(NIXOS).exists()
}

/// The command that installs units and accounts.
pub fn install() -> &'static str {
    if is_nixos() { "nixos-rebuild switch" } else { "gitlab-backup install" }
}

/// What to do about a unit of ours that somebody has masked.
pub fn unmask(unit: &str) -> String {
    match is_nixos() {
        true => format!(
            "systemd.services, .timers or .targets has enable = false for it, or it was masked by hand: let it be, and '{}'",
            install()
        ),
        false => format!("'systemctl unmask {unit}', then '{}'", install()),
    }
}

/// The command that has the clock start `timer`. What a NixOS enables, its configuration says.
pub fn enable(timer: &str) -> String {
    if is_nixos() {
        format!("'systemctl start {timer}'")
    } else {
        format!("'systemctl enable --now {timer}'")
    }
}

/// Where a password is made on this host. Any other file is somebody's to provide: one that is made
/// in its place would be lost with a tmpfs, or open nothing.
pub fn passwords() -> &'static [&'static str] {
    if is_nixos() {
        &[paths::PASSWORD_ON_NIXOS]
    } else {
        &[paths::PASSWORD, paths::PASSWORD_ON_NIXOS]
    }
}

/// The command that makes the password of a new repository.
pub fn password() -> &'static str {
    if is_nixos() {
        "systemctl restart gitlab-backup-secrets.service"
    } else {
        "gitlab-backup install"
    }
}
