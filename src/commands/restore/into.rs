//! `restore --into`: lay a run out in a directory; nothing live is touched.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::config::Config;
use crate::host::beneath::Directory;
use crate::host::text;
use crate::runs::{Manifest, Part};
use crate::stores::files::{self, alternates};
use crate::stores::{extract, space};
use crate::{note, say};

use super::RestoreArgs;
use crate::commands::verify::SCRATCH;

/// Of how many repositories below a directory Git is asked: each takes as long as it is large.
const CHECKED: usize = 20;

/// Lays out what is asked for.
pub(super) fn lay_out(
    config: &Config,
    manifest: &Manifest,
    into: &Path,
    args: &RestoreArgs,
) -> Result<()> {
    let parts = chosen(manifest, args)?;
    let into = std::path::absolute(into).context("the current directory is gone")?;
    let parent =
        into.parent().with_context(|| format!("{} is no directory of its own", into.display()))?;
    let (above, missing) = Directory::nearest(parent)?;
    let name = missing.join(into.file_name().unwrap_or_default());
    let found = match above.look(&name)? {
        Some(_) => Some(above.below(&name)?),
        None => None,
    };
    if let Some(found) = &found {
        ensure!(
            found.entries()?.is_empty(),
            "{} is not empty: name an empty directory or one that is not there yet",
            into.display()
        );
        let stat = found.stat()?;
        let closed =
            stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o022 == 0;
        ensure!(
            closed,
            "others can change what is in {}: name a directory of your own, or one that is not there yet",
            into.display()
        );
    }
    let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
    say!("run {} of {}, into {}:", manifest.id, manifest.host, into.display());
    if let Some(path) = &args.path {
        say!("  {}", text::path(path));
    }
    for part in parts.iter().filter(|_| args.path.is_none()) {
        let paths: Vec<String> = part.paths.iter().map(|path| path.display().to_string()).collect();
        say!(
            "  {:<11} {:>11}  {}",
            part.name,
            indicatif::BinaryBytes(part.bytes).to_string(),
            paths.join(", ")
        );
    }
    if args.dry_run {
        return Ok(());
    }
    let target = match found {
        Some(found) => found,
        None => above.make_all(&name, None)?,
    };
    if args.path.is_none() {
        let mut needed = space::Needed::default();
        needed.add(&into, bytes);
        needed.check()?;
    }
    for part in parts {
        extract::in_child(config, &part.snapshot, &target.reachable(), args.path.as_slice())
            .with_context(|| {
                format!(
                    "part '{}' could not be laid out; what is in {} is not whole",
                    part.name,
                    into.display()
                )
            })?;
        if let Some(path) = &args.path {
            if let Some(repository) = path
                .ancestors()
                .skip(1)
                .find(|above| above.extension().is_some_and(|extension| extension == "git"))
            {
                note!(
                    "warning: this is a part of {}: Git needs the whole of it, and what it shares with others",
                    text::path(repository)
                );
            }
            let found = alternates::find_repositories(&target, path, &part.paths)?;
            let repositories = found.repositories.clone();
            let whole = pools(config, part, &target, found);
            checked(config, part, &repositories);
            whole.with_context(|| format!("what is in {} is not whole", into.display()))?;
        }
        say!("done: {}", part.name);
    }
    Ok(())
}

/// Tells what Git thinks of the repositories that were laid out.
fn checked(config: &Config, part: &Part, repositories: &[PathBuf]) {
    for repository in repositories.iter().take(CHECKED) {
        match files::ensure_git_installed()
            .and_then(|()| files::fsck(config, part, repository, Path::new(SCRATCH)))
        {
            Ok(seen) => say!("git {}: {seen}", text::path(repository)),
            // It may have been so before it was backed up.
            Err(error) => {
                note!("warning: git fsck of {}: {}", text::path(repository), text::why(&error))
            }
        }
    }
    if repositories.len() > CHECKED {
        note!(
            "git fsck was not asked of {} more ('gitlab-backup verify --all-repositories')",
            repositories.len() - CHECKED
        );
    }
}

/// Lays out what repositories share: a fork has most of its objects in a pool, and is unreadable
/// without.
fn pools(config: &Config, part: &Part, target: &Directory, first: alternates::Found) -> Result<()> {
    let mut open = vec![first];
    let mut wrong = Vec::new();
    while let Some(found) = open.pop() {
        wrong.extend(found.wrong);
        for store in found.missing {
            // The repository whose objects they are, for it may need others.
            let pool = store.parent().unwrap_or(&store).to_owned();
            let laid_out = extract::in_child(
                config,
                &part.snapshot,
                &target.reachable(),
                std::slice::from_ref(&pool),
            );
            if let Err(error) = laid_out {
                wrong.push(format!(
                    "{}, of whose objects it has some: {}",
                    text::path(&pool),
                    text::why(&error)
                ));
            } else if target.look(store.strip_prefix("/").unwrap_or(&store))?.is_none() {
                wrong.push(format!("{} is not in the run", text::path(&store)));
            } else {
                say!("  {} too, of whose objects it has some", text::path(&pool));
                open.push(alternates::find_repositories(target, &pool, &part.paths)?);
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

fn chosen<'a>(manifest: &'a Manifest, args: &RestoreArgs) -> Result<Vec<&'a Part>> {
    let names =
        || manifest.parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(path) = &args.path {
        let within = |part: &&Part| part.paths.iter().any(|root| path.starts_with(root));
        let part = manifest.parts.iter().find(within);
        return Ok(vec![part.with_context(|| {
            format!("{} is in no part of run {}", path.display(), manifest.id)
        })?]);
    }
    if let Some(unknown) =
        args.only.iter().find(|name| !manifest.parts.iter().any(|part| part.name == **name))
    {
        bail!("run {} has no part '{unknown}': {}", manifest.id, names());
    }
    Ok(manifest
        .parts
        .iter()
        .filter(|part| args.only.is_empty() || args.only.contains(&part.name))
        .collect())
}
