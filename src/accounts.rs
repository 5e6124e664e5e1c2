//! The OS accounts that are ours. `install` and the NixOS module make them; they own nothing, and
//! have no home and no shell.

/// Who asks PostgreSQL, where that has a role of its own for it.
pub const SERVICE: &str = "gitlab-backup";

/// What comes from others is looked at with it: repositories, dumps, Redis' files.
pub const SANDBOX: &str = "gitlab-backup-sandbox";

/// What is restored is loaded with it into a PostgreSQL that is reached by a socket, which knows
/// its role of that name by the account. Nothing that only looks runs as it: who gets out of the
/// confinement of one cannot be the other.
pub const LOADER: &str = "gitlab-backup-loader";
