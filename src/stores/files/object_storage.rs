//! Object storage: what GitLab keeps elsewhere is not in a backup, and whoever relies on it should
//! know.

use std::path::PathBuf;

use crate::config::declared;
use crate::config::host::Host;
use crate::finding::Finding;

/// Tells what is kept in object storage; nothing where nothing is. `configuration` has more places
/// than the layouts' own.
pub fn finding(host: &Host, configuration: &[PathBuf]) -> Option<Finding> {
    let rails = declared::rails(host, configuration)
        .into_iter()
        .flatten()
        .find(|rails| !rails.in_object_storage().is_empty())?;
    let words = format!(
        "{} in object storage ({}): that is not in the backup, save it where it is",
        rails.in_object_storage().join(", "),
        rails.file.display()
    );
    Some(Finding::warning("object storage", words))
}
