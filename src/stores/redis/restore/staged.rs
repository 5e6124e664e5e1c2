//! The file of a run, staged beside the server's own.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Seek;
use std::path::Path;

use anyhow::{Context, Result};

use crate::host::beneath::Directory;
use crate::runs::restore::{Move, Moves, StagedRedis};
use crate::stores::redis::files::own;

/// Stages the file of `dumps` beside the server's own, with the server's rights. The server is down:
/// the file that it wrote last is the one that goes aside.
pub(super) fn stage(redis: &mut StagedRedis, dumps: &Path) -> Result<Moves> {
    let file = format!("{}.rdb", redis.name);
    let content = Directory::open(dumps)?.file(Path::new(&file))?;
    let account = redis.account;
    account.act(|| staged(redis, &content)).with_context(|| {
        format!("cannot lay the file of Redis {} out in {}", redis.name, redis.directory.display())
    })
}

fn staged(redis: &mut StagedRedis, content: &File) -> Result<Moves> {
    let directory = own(&redis.directory, redis.account)?;
    let places = &mut redis.places;
    // Of an attempt before this one, which was taken back.
    places.staged.remove()?;
    places.aside.remove_empty()?;
    places.make()?;
    let staged = places.staged.open()?;
    let mut steps = Vec::new();
    let mut add = |name: &str, with: bool| -> Result<()> {
        if with {
            // Not by `durable`: the file only gets its final name when GitLab is down and
            // everything is staged (`Moves`), and all file systems are synced before that.
            let mut new = staged.create(OsStr::new(name), 0o640)?;
            let mut content = content;
            content.rewind()?;
            std::io::copy(&mut content, &mut new)?;
            new.sync_all()?;
        }
        let old = directory.look(Path::new(name))?.is_some();
        steps.push(Move { live: redis.directory.join(name), inside: name.into(), new: with, old });
        Ok(())
    };
    add(&redis.file, true)?;
    if let Some((directory, file)) = &redis.append_only {
        // It starts from this one alone, which may begin with an RDB; 7.0 and newer take it over
        // into their directory.
        add(file, true)?;
        if let Some(directory) = directory {
            add(directory, false)?;
        }
    }
    Ok(Moves { places: redis.places.clone(), account: Some(redis.account), steps })
}
