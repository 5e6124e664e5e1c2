//! `restore --into`: lay a run out in a directory; nothing live is touched.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::config::Config;
use crate::runs::{Manifest, Part};
use crate::say;
use crate::steps::{extract, space};

use super::RestoreArgs;

/// Lays out what is asked for.
pub(super) fn lay_out(config: &Config, manifest: &Manifest, into: &Path, args: &RestoreArgs) -> Result<()> {
    let parts = chosen(manifest, args)?;
    let into = std::path::absolute(into).context("the current directory is gone")?;
    if let Ok(mut entries) = fs::read_dir(&into) {
        ensure!(entries.next().is_none(), "{} is not empty: name an empty directory or one that is not there yet", into.display());
    }
    let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
    say!("run {} of {}, into {}:", manifest.id, manifest.host, into.display());
    for part in &parts {
        let paths: Vec<String> = part.paths.iter().map(|path| path.display().to_string()).collect();
        say!("  {:<11} {:>11}  {}", part.name, indicatif::BinaryBytes(part.bytes).to_string(), paths.join(", "));
    }
    if args.dry_run {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&into).with_context(|| format!("cannot make {}", into.display()))?;
    if args.path.is_none() {
        let mut needed = space::Needed::default();
        needed.add(&into, bytes);
        needed.check()?;
    }
    for part in parts {
        extract::in_child(config, &part.snapshot, &into, args.path.as_slice())
            .with_context(|| format!("part '{}' could not be laid out; what is in {} is not whole", part.name, into.display()))?;
        say!("done: {}", part.name);
    }
    Ok(())
}

fn chosen<'a>(manifest: &'a Manifest, args: &RestoreArgs) -> Result<Vec<&'a Part>> {
    let names = || manifest.parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(path) = &args.path {
        let within = |part: &&Part| part.paths.iter().any(|root| path.starts_with(root));
        let part = manifest.parts.iter().find(within);
        return Ok(vec![part.with_context(|| format!("{} is in no part of run {}", path.display(), manifest.id))?]);
    }
    if let Some(unknown) = args.only.iter().find(|name| !manifest.parts.iter().any(|part| part.name == **name)) {
        bail!("run {} has no part '{unknown}': {}", manifest.id, names());
    }
    Ok(manifest.parts.iter().filter(|part| args.only.is_empty() || args.only.contains(&part.name)).collect())
}
