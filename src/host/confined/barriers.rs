//! The kernel's restrictions of a confined program: access to files (landlock(7), if the kernel
//! supports it), and sockets and dangerous system calls (seccomp(2)).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, Scope, path_beneath_rules,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// The directories of programs and libraries: on Debian and similar systems, on NixOS, and of
/// GitLab's Omnibus package.
const SYSTEM: [&str; 11] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/run/current-system",
    "/opt/gitlab/embedded",
    "/gnu/store",
];
/// Files that programs and libraries read when they start.
const STARTING: [&str; 14] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/zoneinfo",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
    "/etc/crypto-policies",
    "/etc/alternatives",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
];

/// The sockets that a program may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sockets {
    /// None: neither the network nor the bus can be reached.
    None,
    /// Unix sockets on which it listens; it cannot connect.
    Listening,
    /// All.
    All,
}

impl Sockets {
    /// The word on the command line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Listening => "listening",
            Self::All => "all",
        }
    }
}

/// The files that a program may access.
pub(super) struct Sight(RulesetCreated);

impl Sight {
    /// The system's programs, `program` and `readable` for reading, and `place` also for writing.
    pub(super) fn new(
        program: &Path,
        place: &Path,
        readable: &[PathBuf],
        sockets: Sockets,
    ) -> Result<Self> {
        let abi = ABI::V6;
        let read = AccessFs::from_read(abi);
        let devices: &[&str] = match sockets {
            // The shared memory of PostgreSQL's processes.
            Sockets::Listening => &["/dev/null", "/dev/shm"],
            _ => &["/dev/null"],
        };
        let ruleset = || {
            let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
            let ruleset = ruleset
                .handle_access(AccessFs::from_all(abi))?
                .scope(Scope::from_all(abi))?
                .create()?;
            let ruleset = ruleset
                .add_rules(path_beneath_rules(SYSTEM, read))?
                .add_rules(path_beneath_rules(STARTING, read))?;
            let ruleset = ruleset.add_rules(path_beneath_rules(installation(program), read))?;
            let ruleset = ruleset.add_rules(path_beneath_rules(readable, read))?;
            let ruleset =
                ruleset.add_rules(path_beneath_rules([place], AccessFs::from_all(abi)))?;
            let ruleset =
                ruleset.add_rules(path_beneath_rules(devices, AccessFs::from_all(abi)))?;
            anyhow::Ok(ruleset)
        };
        ruleset().context("cannot set up what a confined program may see").map(Self)
    }

    /// Denies access to all other files from here on.
    pub(super) fn close(self) -> Result<()> {
        self.0.restrict_self().context("cannot close off what a confined program may see").map(drop)
    }
}

/// The directory of a program outside of [`SYSTEM`]: if that is `bin`, its parent, with the
/// libraries.
fn installation(program: &Path) -> Option<PathBuf> {
    let program = program.canonicalize().ok()?;
    if SYSTEM.iter().any(|directory| program.starts_with(directory)) {
        return None;
    }
    let bin = program.parent()?;
    // Never the root directory.
    let above = bin.parent().filter(|above| bin.ends_with("bin") && above.parent().is_some());
    Some(above.unwrap_or(bin).to_owned())
}

/// System calls that access the memory of other processes, keys, files by handle, namespaces, or
/// sockets past the filter.
const REFUSED: [libc::c_long; 22] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_open_by_handle_at,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Refuses the system calls. Does nothing on a processor that the library does not support: the
/// program still runs as another account.
pub(super) fn restrict(sockets: Sockets) -> Result<()> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(()) };
    if sockets == Sockets::All {
        return Ok(());
    }
    let apply = || {
        // The arguments of clone3(2) cannot be filtered. With ENOSYS, libraries use clone(2).
        let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        seccompiler::apply_filter(&filter(clone3, libc::ENOSYS, arch)?)?;
        seccompiler::apply_filter(&filter(refused(sockets)?, libc::EPERM, arch)?)?;
        anyhow::Ok(())
    };
    apply().context("cannot refuse system calls to a confined program")
}

fn refused(sockets: Sockets) -> Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let namespace = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    rules.insert(libc::SYS_clone, vec![when(0, SeccompCmpOp::MaskedEq(namespace), namespace)?]);
    let family = u64::from(libc::AF_UNIX.unsigned_abs());
    match sockets {
        Sockets::None => {
            rules.extend([libc::SYS_socket, libc::SYS_connect].map(|call| (call, Vec::new())))
        }
        Sockets::Listening => {
            // Only stream sockets of this family: the other types can send without a connection.
            let mut kinds = vec![when(0, SeccompCmpOp::Ne, family)?];
            let stream = u64::from(libc::SOCK_STREAM.unsigned_abs());
            for kind in (0..16).filter(|kind| *kind != stream) {
                kinds.push(when(1, SeccompCmpOp::MaskedEq(0xf), kind)?);
            }
            rules.insert(libc::SYS_socket, kinds);
            rules.insert(libc::SYS_connect, Vec::new());
        }
        Sockets::All => {}
    }
    Ok(rules)
}

fn when(argument: u8, comparison: SeccompCmpOp, value: u64) -> Result<SeccompRule> {
    Ok(SeccompRule::new(vec![SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        comparison,
        value,
    )?])?)
}

fn filter(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    error: i32,
    arch: TargetArch,
) -> Result<BpfProgram> {
    // The same calls also have the numbers of the x32 ABI.
    #[cfg(target_arch = "x86_64")]
    let rules = rules
        .into_iter()
        .flat_map(|(call, rules)| [(call, rules.clone()), (call | 0x4000_0000, rules)])
        .collect();
    let refused = SeccompAction::Errno(error.unsigned_abs());
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?.try_into()?)
}
