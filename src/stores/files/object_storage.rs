//! Checks whether GitLab keeps objects in object storage, which no backup holds.

use std::path::PathBuf;

use crate::config::declared;
use crate::config::host::Host;
use crate::finding::Finding;

/// A warning that names the kinds of objects in object storage, if there are any. `configuration`
/// lists further places of `gitlab.yml`, besides those of the known layouts.
pub fn finding(host: &Host, configuration: &[PathBuf]) -> Option<Finding> {
    let rails = declared::rails(host, configuration)
        .into_iter()
        .flatten()
        .find(|rails| !rails.in_object_storage().is_empty())?;
    let words = format!(
        "{} in object storage ({}): not in the backup, back up the object storage itself",
        rails.in_object_storage().join(", "),
        rails.file.display()
    );
    Some(Finding::warning("object storage", words))
}
