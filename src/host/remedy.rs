//! What brings this host up to its configuration, for messages. On NixOS the module does what `install` does elsewhere.

use std::path::Path;

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

/// The command that makes the password of a new repository.
pub fn password() -> &'static str {
    if is_nixos() { "systemctl restart gitlab-backup-secrets.service" } else { "gitlab-backup install" }
}
