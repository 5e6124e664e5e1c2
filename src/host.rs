//! The operating system: files and directories, also of other users, processes, accounts, sockets,
//! the clock.

pub mod beneath;
pub mod clock;
pub mod confined;
pub mod durable;
pub mod holes;
pub mod identity;
pub mod limits;
pub mod log;
pub mod mounts;
pub mod own;
pub mod process;
pub mod random;
pub mod remedy;
pub mod secret;
pub mod socket;
pub mod text;
pub mod tls;
pub mod user;

/// The running host's name, as the kernel reports it.
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
