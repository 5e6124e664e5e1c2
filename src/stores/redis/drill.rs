//! The drill: loads an RDB file of the run into a temporary server, and compares the number of
//! keys.

use std::ffi::OsStr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::connection::{Connection, Info};
use super::keys::Keys;
use super::rdb::RdbFormat;
use super::remote;
use crate::config::{Redis, RedisAddress};
use crate::host::beneath::Directory;
use crate::host::user;
use crate::stores::inspection::scratch::{Scratch, give};
use crate::stores::inspection::server::{Launch, ScratchServer, ensure_short};
use crate::systemd::notify;
use crate::values::Timespan;

/// Moves `file` to the directory of a temporary server, which loads it. Compares the number of keys
/// with `expected`, which `redis-check-rdb` has counted.
pub(super) async fn load(
    name: &str,
    file: &Path,
    expected: Option<Keys>,
    scratch: &Scratch,
) -> Result<String> {
    notify::status(&format!("loading the file of Redis {name} for the drill"));
    let programs = RdbFormat::at(file)?.programs("server");
    let program = remote::installed(&programs).with_context(|| {
        format!("{} is not installed: install it (the service need not run)", programs.join(" or "))
    })?;
    let user = user::sandbox()?;
    let place = scratch.create_place_for(&format!("drill-redis-{name}"), user.as_ref())?;
    let socket = place.join("socket");
    ensure_short(&socket)?;
    let (from, name_in_run) = Directory::of(file)?;
    let to = Directory::open(&place)?;
    from.rename(&name_in_run, &to, OsStr::new("dump.rdb"))?;
    // Change the owner before the server starts: afterwards it could put links there.
    give(&to, user.as_ref())?;

    let mut server = ScratchServer::start(
        &Launch { user: user.as_ref(), place: &place, signal: Signal::KILL },
        &program,
        &arguments(&place, &socket),
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
            // The server is untrusted, and can put anything at this path.
            if !socket.symlink_metadata().is_ok_and(|found| found.file_type().is_socket()) {
                return Ok(None);
            }
            let info = Connection::connect(&redis).await?.info().await?;
            Ok((info.number("loading")? == 0).then_some(info))
        })
        .await?;
    compare(&loaded, expected)
}

/// The arguments of the server: it listens on a socket in its directory, and never saves.
fn arguments(place: &Path, socket: &Path) -> Vec<String> {
    let [place, socket] = [place, socket].map(|path| path.to_string_lossy().into_owned());
    let arguments = [
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
    arguments.concat().into_iter().map(str::to_owned).collect()
}

/// Compares the keys that the server has loaded with those that `redis-check-rdb` has counted.
/// Returns a line for the report.
fn compare(loaded: &Info, expected: Option<Keys>) -> Result<String> {
    let keys = loaded.keys();
    let Some(expected) = expected else { return Ok(format!("loaded, {keys} keys")) };
    let count = |field| loaded.number(field).ok().and_then(|count| u64::try_from(count).ok());
    // The server drops keys that have expired. Servers before 7.0 do not say how many.
    match (count("rdb_last_load_keys_loaded"), count("rdb_last_load_keys_expired")) {
        (Some(seen), Some(expired)) => {
            ensure!(
                seen + expired == expected.read,
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
