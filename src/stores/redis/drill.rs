//! Every Redis file of the run, loaded by a server of its own, and its keys counted.

use std::ffi::OsStr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::rdb::Format;
use super::remote;
use super::server::{Info, Server as Connection};
use super::verify::Keys;
use crate::config::{Redis, RedisAddress};
use crate::host::beneath::Directory;
use crate::host::user;
use crate::stores::inspection::scratch::{Scratch, give};
use crate::stores::inspection::server::{Launch, ScratchServer, ensure_short};
use crate::systemd::notify;
use crate::values::Timespan;

/// Loads `file`, which is moved away for it, and compares the number of keys with that of
/// `redis-check-rdb`.
pub(super) async fn load(
    name: &str,
    file: &Path,
    expected: Option<Keys>,
    scratch: &Scratch,
) -> Result<String> {
    notify::status(&format!("loading the file of Redis {name} for the drill"));
    let programs = Format::at(file)?.programs("server");
    let program = remote::installed(&programs).with_context(|| {
        format!("{} is not installed: install it, it need not run", programs.join(" or "))
    })?;
    let user = user::sandbox()?;
    let place = scratch.create_place_for(&format!("drill-redis-{name}"), user.as_ref())?;
    let socket = place.join("socket");
    ensure_short(&socket)?;
    let (from, was) = Directory::of(file)?;
    let to = Directory::open(&place)?;
    from.rename(&was, &to, OsStr::new("dump.rdb"))?;
    // Before there is a server in it.
    give(&to, user.as_ref())?;

    let mut server = ScratchServer::start(
        &Launch { user: user.as_ref(), place: &place, signal: Signal::KILL },
        &program,
        &words(&place, &socket),
    )?;
    let redis = Redis {
        name: name.to_owned(),
        address: RedisAddress::Unix(socket.clone()),
        username: None,
        password: None,
        unit: None,
        timeout: Timespan::from_secs(600),
    };
    let loaded = server
        .wait_for_answer(async || {
            // Nothing else is called: what lies under this name is the server's to say.
            if !socket.symlink_metadata().is_ok_and(|found| found.file_type().is_socket()) {
                return Ok(None);
            }
            let info = Connection::connect(&redis).await?.info().await?;
            Ok((info.number("loading")? == 0).then_some(info))
        })
        .await?;
    compare(&loaded, expected)
}

/// What the server is started with: it listens on a socket in its place, and writes nothing.
fn words(place: &Path, socket: &Path) -> Vec<String> {
    let [place, socket] = [place, socket].map(|path| path.to_string_lossy().into_owned());
    let words = [
        ["--port", "0"],
        ["--unixsocket", &socket],
        ["--unixsocketperm", "777"],
        ["--dir", &place],
        ["--dbfilename", "dump.rdb"],
        ["--save", ""],
        ["--appendonly", "no"],
        ["--daemonize", "no"],
        ["--logfile", ""],
    ];
    words.concat().into_iter().map(str::to_owned).collect()
}

/// Compares what the server has loaded with what redis-check-rdb has read.
fn compare(loaded: &Info, expected: Option<Keys>) -> Result<String> {
    let keys = loaded.keys();
    let Some(expected) = expected else { return Ok(format!("loaded, {keys} keys")) };
    let count = |field| loaded.number(field).ok().and_then(|count| u64::try_from(count).ok());
    // The server drops keys that have expired; from 7.0 on it counts them.
    match (count("rdb_last_load_keys_loaded"), count("rdb_last_load_keys_expired")) {
        (Some(seen), Some(dropped)) => {
            ensure!(
                seen + dropped == expected.read,
                "{seen} keys were loaded, and redis-check-rdb reads {}",
                expected.read
            );
        }
        _ => {
            let possible = expected.read.saturating_sub(expected.expires)..=expected.read;
            ensure!(
                possible.contains(&keys),
                "{keys} keys were loaded, and redis-check-rdb reads {}",
                expected.read
            );
        }
    }
    Ok(format!("loaded, {} keys as redis-check-rdb reads them", expected.read))
}
