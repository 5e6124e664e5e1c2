//! Acting with the rights of another account, for operations that root must not do with its own.

use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

/// An account of the host, by its ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
}

impl Account {
    /// Executes `work` with the rights of this account: in a new thread whose effective user and
    /// groups are the account's, which also removes root's capabilities. If this process runs as
    /// the account already, executes `work` directly.
    ///
    /// # Errors
    /// If the rights cannot be changed (`CAP_SETUID` and `CAP_SETGID`), or if `work` fails.
    pub fn act<T: Send>(self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        if geteuid().as_raw() == self.uid {
            return work();
        }
        let worked = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.become_it().with_context(|| format!("cannot act as user {}", self.uid))?;
                work()
            });
            thread.join()
        });
        worked.map_err(|_| anyhow!("a thread that acted as user {} died", self.uid))?
    }

    /// Changes the credentials of this thread only; the kernel has them per thread.
    fn become_it(self) -> Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_groups(&[])?;
        set_thread_res_gid(None, gid, None)?;
        set_thread_res_uid(None, uid, None)?;
        ensure!(geteuid() == uid && getegid() == gid, "the rights of root are still there");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Only root can become another user.
    #[test]
    fn another_account_cannot_read_what_root_can_and_root_stays_root() {
        if !geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = directory.path().join("secret");
        fs::write(&file, "s").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let nobody = Account { uid: 65534, gid: 65534 };
        assert!(nobody.act(|| Ok(fs::read(&file).is_ok())).is_ok_and(|read| !read));
        assert!(fs::read(&file).is_ok());
    }
}
