//! Object storage: what GitLab keeps elsewhere is not in a backup, and whoever relies on it should know.

use crate::config::declared;
use crate::config::host::Host;
use crate::finding::Finding;

/// Tells what is kept in object storage; nothing where nothing is.
pub fn finding(host: &Host) -> Option<Finding> {
    let rails = declared::rails(host, &[]).into_iter().flatten().find(|rails| !rails.elsewhere().is_empty())?;
    let words = format!(
        "{} in object storage ({}): that is not in the backup, save it where it is",
        rails.elsewhere().join(", "),
        rails.file.display()
    );
    Some(Finding::warning("object storage", words))
}
