//! Verifies the RDB files of a run: reads each, and loads it into a server if the depth asks for
//! it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use super::drill;
use super::keys::count_keys;
use crate::finding::Finding;
use crate::runs::Part;
use crate::stores::inspection::{Inspection, entries};

/// Reports a finding on the RDB file of each instance, and one on its drill if the depth asks for
/// it.
pub(super) async fn verify(
    inspection: &mut Inspection<'_>,
    part: &Part,
    place: &Path,
) -> Result<()> {
    inspection.extract(part, place)?;
    for (name, path) in instances(part, place)? {
        let keys = count_keys(&path, inspection.user.as_ref());
        inspection.report(match &keys {
            Ok(Some(keys)) => Finding::of(
                format!("redis {name}"),
                Ok(format!("redis-check-rdb reads {} keys", keys.read)),
            ),
            Ok(None) => Finding::warning(
                format!("redis {name}"),
                "cannot be checked: its format is newer than the redis-check-rdb of this host",
            ),
            Err(error) => Finding::of(format!("redis {name}"), Err(anyhow!("{error:#}"))),
        });
        if inspection.depth.drill {
            let expected = keys.ok().flatten();
            let loaded = drill::load(&name, &path, expected, &inspection.scratch).await;
            inspection.report(Finding::of(format!("drill redis {name}"), loaded));
        }
    }
    Ok(())
}

/// The name of each instance in the part, and the path of its extracted file.
fn instances(part: &Part, place: &Path) -> Result<Vec<(String, PathBuf)>> {
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let files = entries(part, place)?
        .into_iter()
        .filter(|(path, _)| path.extension() == Some(OsStr::new("rdb")));
    Ok(files.map(|(path, _)| (name(&path), path)).collect())
}
