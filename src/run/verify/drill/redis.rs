//! Every Redis file of the run, loaded by a server of its own, and its keys counted.

use std::ffi::OsStr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::config::{Redis, RedisAddress};
use crate::host::beneath::Directory;
use crate::host::user;
use crate::stores::redis::rdb::Format;
use crate::stores::redis::remote;
use crate::stores::redis::server::Server as Connection;
use crate::systemd::notify;
use crate::values::Timespan;

use super::server::{Launch, Server, ensure_short};
use crate::run::verify::dumps::Keys;
use crate::run::verify::scratch::{Scratch, give};

/// Loads `file`, which is moved away for it, and compares the number of keys with that of
/// `redis-check-rdb`.
pub(in crate::run::verify) async fn load(
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
    let place = scratch.place_of(&format!("drill-redis-{name}"), user.as_ref())?;
    let socket = place.join("socket");
    ensure_short(&socket)?;
    let (from, was) = Directory::of(file)?;
    let to = Directory::open(&place)?;
    from.rename(&was, &to, OsStr::new("dump.rdb"))?;
    // Before there is a server in it.
    give(&to, user.as_ref())?;

    let words = [
        "--port",
        "0",
        "--unixsocket",
        &socket.to_string_lossy(),
        "--unixsocketperm",
        "777",
        "--dir",
        &place.to_string_lossy(),
    ];
    let rest = [
        "--dbfilename",
        "dump.rdb",
        "--save",
        "",
        "--appendonly",
        "no",
        "--daemonize",
        "no",
        "--logfile",
        "",
    ];
    let words: Vec<String> = words.into_iter().chain(rest).map(str::to_owned).collect();
    let mut server = Server::start(
        &Launch { user: user.as_ref(), place: &place, signal: Signal::KILL },
        &program,
        &words,
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
        .answering(async || {
            // Nothing else is called: what lies under this name is the server's to say.
            if !socket.symlink_metadata().is_ok_and(|found| found.file_type().is_socket()) {
                return Ok(None);
            }
            let info = Connection::connect(&redis).await?.info().await?;
            Ok((info.number("loading")? == 0).then_some(info))
        })
        .await?;
    let keys = loaded.keys();
    let Some(expected) = expected else { return Ok(format!("loaded, {keys} keys")) };
    // What had outlived its time is dropped by the server; from 7.0 it counts that.
    let dropped = loaded
        .number("rdb_last_load_keys_expired")
        .ok()
        .and_then(|count| u64::try_from(count).ok());
    let seen =
        loaded.number("rdb_last_load_keys_loaded").ok().and_then(|count| u64::try_from(count).ok());
    match (seen, dropped) {
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
