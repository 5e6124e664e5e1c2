//! Runs programs that read data of other users (Git, and those of PostgreSQL and Redis) confined:
//! as an account that owns nothing, without capabilities, inherited environment and open files,
//! without network and bus, with access only to the system's programs and one directory, and not
//! longer than this process.
//!
//! For that, this program executes itself ([`enter`]), confines itself, and executes the other
//! program. No code runs between fork(2) and execve(2).

mod apart;
mod barriers;
mod run;

use crate::host::{own, text};
use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::User;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::CapabilitySet;

pub use barriers::Sockets;
pub use run::run;

/// How a program is confined.
#[derive(Debug, Clone)]
pub struct Confinement<'a> {
    /// The user of the program; `None` for that of this process.
    pub user: Option<&'a User>,
    /// The only directory in which it may write; also its working directory.
    pub place: &'a Path,
    /// Directories and files that it may read in addition to the system's programs.
    pub readable: Vec<PathBuf>,
    /// The sockets that it may have.
    pub sockets: Sockets,
    /// The signal that the kernel sends it when this process ends.
    pub signal: Signal,
}

impl<'a> Confinement<'a> {
    /// A program in `place`, as `user`, without sockets.
    pub fn new(user: Option<&'a User>, place: &'a Path) -> Self {
        Self { user, place, readable: Vec::new(), sockets: Sockets::None, signal: Signal::KILL }
    }

    /// The command that runs `program` confined. Must be spawned by the main thread, because the
    /// kernel binds it to the thread.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = start(self.user, self.signal);
        command.arg("--sockets").arg(self.sockets.word()).arg("--write").arg(self.place);
        for path in &self.readable {
            command.arg("--read").arg(path);
        }
        command.arg("--").arg(program);
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .env_clear()
            .env("PATH", path)
            .env("LC_ALL", "C")
            .env("HOME", self.place)
            .env("TMPDIR", self.place);
        command.current_dir(self.place).stdin(std::process::Stdio::null());
        command
    }
}

/// A command that runs `program` as `user` with its groups, and otherwise unconfined: for this
/// program, when it connects to a server as the server's user.
pub fn bound(program: &Path, user: Option<&User>, signal: Signal) -> Command {
    let mut command = start(user, signal);
    if let Some(user) = user {
        command.arg("--groups-of").arg(&user.name);
    }
    command.arg("--").arg(program);
    command
}

fn start(user: Option<&User>, signal: Signal) -> Command {
    let mut command = Command::new(own());
    command.args([
        "helper",
        "confine",
        "--parent",
        &std::process::id().to_string(),
        "--signal",
        &signal.as_raw().to_string(),
    ]);
    if let Some(user) = user {
        command.args(["--user", &user.uid.to_string(), "--group", &user.gid.to_string()]);
    }
    command
}

/// The path of this program. In the tests of the library, which are another program, that of the
/// built one.
fn own() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    if !cfg!(test) {
        return own;
    }
    let built = own.ancestors().nth(2).map(|profile| profile.join("gitlab-backup"));
    built
        .filter(|built| built.exists())
        .unwrap_or_else(|| panic!("the program is not built: 'cargo build' first"))
}

/// The arguments of `helper confine`.
#[derive(Debug, Clone, clap::Args)]
pub struct Confine {
    /// The process that started it and with which it ends.
    #[arg(long)]
    parent: i32,
    /// The signal that it receives then.
    #[arg(long)]
    signal: i32,
    /// The user to become.
    #[arg(long, requires = "group")]
    user: Option<u32>,
    /// The group to become.
    #[arg(long, requires = "user")]
    group: Option<u32>,
    /// The account whose other groups it has.
    #[arg(long, requires = "user", conflicts_with = "write")]
    groups_of: Option<String>,
    /// The directory in which it may write; without one, access to files is not restricted.
    #[arg(long)]
    write: Option<PathBuf>,
    /// A directory or file that it may read.
    #[arg(long)]
    read: Vec<PathBuf>,
    /// The sockets that it may have.
    #[arg(long, value_enum, default_value_t = Sockets::All)]
    sockets: Sockets,
    /// Its place in the process-id namespace: given once, the first process; twice, the program.
    #[arg(long, action = clap::ArgAction::Count)]
    within: u8,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Confines this process and executes the program. Call it before there is another thread.
///
/// # Errors
/// If a restriction cannot be applied, or the program cannot be executed.
pub fn enter(confine: &Confine) -> Result<Infallible> {
    let (program, words) = confine.command.split_first().context("there is no program to run")?;
    close_inherited();
    let status = match confine.within {
        0 if confine.write.is_some() && apart::is_possible() => apart::execute(bind(confine)?)?,
        1 => Some(apart::lead(bind(confine)?)?),
        _ => None,
    };
    if let Some(status) = status {
        std::process::exit(status);
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // Without a terminal. Fails only for a process group leader, which has none either.
    let _ = rustix::process::setsid();
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).context("cannot switch core dumps off")?;
    // Data of other users may need any amount of memory: the kernel should kill this process first.
    // Ignored where it is not permitted.
    if confine.write.is_some() {
        let _ = own::write_to_kernel("/proc/self/oom_score_adj", "500");
    }
    rustix::thread::set_no_new_privs(true).context("cannot give up gaining rights")?;
    // The permitted files are opened as the current user. The restriction applies after the change
    // of the user.
    let sight = match &confine.write {
        Some(place) => {
            Some(barriers::Sight::new(Path::new(program), place, &confine.read, confine.sockets)?)
        }
        None => None,
    };
    if let (Some(user), Some(group)) = (confine.user, confine.group) {
        ensure!(user != 0 || confine.write.is_none(), "root is no account for what others wrote");
        become_account(user, group, confine.groups_of.as_deref())?;
    }
    // The change from root drops capabilities, unless the securebits keep them.
    if confine.write.is_some() || confine.user.is_some_and(|user| user != 0) {
        give_capabilities_up()?;
    }
    // After the change of the user, which resets it.
    bind(confine)?;
    if let Some(sight) = sight {
        sight.close()?;
    }
    barriers::restrict(confine.sockets)?;
    let error = Command::new(program).args(words).exec();
    Err(text::cannot_run(program, &error))
}

/// Binds this process to its parent, and fails if the parent has ended already. Returns the signal
/// that ends the program.
fn bind(confine: &Confine) -> Result<Signal> {
    let signal = Signal::from_named_raw(confine.signal).context("there is no such signal")?;
    // The processes in the namespace are killed: the process outside passes the signal on.
    let last = if confine.within > 0 { Signal::KILL } else { signal };
    rustix::process::set_parent_process_death_signal(Some(last))
        .context("cannot be bound to the parent's end")?;
    match confine.within {
        0 => {
            let parent = rustix::process::getppid().map(Pid::as_raw_nonzero);
            ensure!(parent.is_some_and(|pid| pid.get() == confine.parent), "the parent is gone");
        }
        1 => apart::ensure_waited_for()?,
        // The parent is the first process of the namespace, with which all others end.
        _ => {}
    }
    Ok(signal)
}

/// Closes all inherited files except the standard streams.
fn close_inherited() {
    let Ok(open) = own::entries("/proc/self/fd") else { return };
    let numbers: Vec<i32> = open
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in numbers {
        // Fails for the descriptor of the list itself, which is closed already.
        let _ = nix::unistd::close(fd);
    }
}

fn become_account(user: u32, group: u32, groups_of: Option<&str>) -> Result<()> {
    use rustix::process::{Gid, Uid, getegid, geteuid, getgid, getuid};
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(group));
    let become_it = || -> Result<()> {
        match groups_of {
            Some(name) => nix::unistd::initgroups(&CString::new(name)?, group.into())?,
            None => rustix::thread::set_thread_groups(&[])?,
        }
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    };
    become_it().with_context(|| format!("cannot become user {user}"))?;
    if getuid() != uid || geteuid() != uid || getgid() != gid || getegid() != gid {
        bail!("cannot become user {user}: the kernel has kept another");
    }
    Ok(())
}

fn give_capabilities_up() -> Result<()> {
    let none = CapabilitySet::empty();
    // Fails only on kernels without ambient capabilities.
    let _ = rustix::thread::clear_ambient_capability_set();
    let sets =
        rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).context("cannot give capabilities up")?;
    let left = rustix::thread::capabilities(None).context("cannot ask for capabilities")?;
    ensure!(left.effective.is_empty() && left.permitted.is_empty(), "capabilities are left");
    Ok(())
}
