//! Stages the file of a run beside the server's own.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Seek;
use std::path::Path;

use anyhow::{Context, Result};

use crate::host::beneath::Directory;
use crate::runs::restore::{Move, Moves, StagedRedis};
use crate::stores::redis::server_files::open_own_directory;

/// Stages the instance's file from the directory `dumps`, with the server's rights. Returns the
/// moves that exchange it with the server's own file. The server must be down, because it writes
/// its file when it stops.
pub(super) fn stage(redis: &mut StagedRedis, dumps: &Path) -> Result<Moves> {
    let file = format!("{}.rdb", redis.name);
    let content = Directory::open(dumps)?.file(Path::new(&file))?;
    let account = redis.account;
    account.act(|| stage_content(redis, &content)).with_context(|| {
        format!("cannot stage the file of Redis {} in {}", redis.name, redis.directory.display())
    })
}

/// Creates the staging directory with a copy of `content`, and plans the moves.
fn stage_content(redis: &mut StagedRedis, content: &File) -> Result<Moves> {
    let directory = open_own_directory(&redis.directory, redis.account)?;
    let places = &mut redis.places;
    // An earlier attempt that was rolled back may have left its directories.
    places.staged.remove()?;
    places.aside.remove_empty()?;
    places.make()?;
    let staged = places.staged.open()?;
    let mut steps = Vec::new();
    let mut add = |name: &str, has_content: bool| -> Result<()> {
        if has_content {
            // Not by `durable`: the file only gets its final name when GitLab is down and
            // everything is staged (`Moves`), and all file systems are synced before that.
            let mut new = staged.create(OsStr::new(name), 0o640)?;
            let mut content = content;
            content.rewind()?;
            std::io::copy(&mut content, &mut new)?;
            new.sync_all()?;
        }
        let old = directory.look(Path::new(name))?.is_some();
        let live = redis.directory.join(name);
        steps.push(Move { live, inside: name.into(), new: has_content, old });
        Ok(())
    };
    add(&redis.file, true)?;
    if let Some((directory, file)) = &redis.append_only {
        // A server with an append-only file reads that file only, and the file may be an RDB. 7.0
        // and newer move it to their append-only directory if that does not exist.
        add(file, true)?;
        if let Some(directory) = directory {
            add(directory, false)?;
        }
    }
    Ok(Moves { places: redis.places.clone(), account: Some(redis.account), steps })
}
