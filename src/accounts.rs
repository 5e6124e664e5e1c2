//! The OS accounts that `install` and the NixOS module create. They own no files, and have no home
//! directory and no shell.

/// Connects to PostgreSQL, if the role that backs up is not an existing account's.
pub const SERVICE: &str = "gitlab-backup";

/// Runs the programs that inspect untrusted data: repositories, dumps and Redis' files.
pub const SANDBOX: &str = "gitlab-backup-sandbox";

/// Loads restored dumps into a PostgreSQL on a socket, where peer authentication maps the account
/// to the role of the same name. Inspections run as [`SANDBOX`] instead, so that an escape from
/// their confinement does not gain this role.
pub const LOADER: &str = "gitlab-backup-loader";
