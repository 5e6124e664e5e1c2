//! What the kernel refuses a confined program: other files (landlock(7), where the kernel has it),
//! sockets and the system calls by which a program gains or reaches what is not its own
//! (seccomp(2)).

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

/// Where programs and what they are made of are: on Debian and its like, on NixOS, in GitLab's
/// Omnibus package.
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
/// What programs and libraries read as they start.
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
    /// None, so that neither the network nor the bus is reached.
    None,
    /// Those in directories, to be called: it calls nobody.
    Listening,
    /// All.
    All,
}

impl Sockets {
    /// As an argument.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Listening => "listening",
            Self::All => "all",
        }
    }
}

/// What a program may see of the file systems.
pub(super) struct Sight(RulesetCreated);

impl Sight {
    /// The system's programs and `program`, what is `readable`, and `place`, in which it may write.
    pub(super) fn new(
        program: &Path,
        place: &Path,
        readable: &[PathBuf],
        sockets: Sockets,
    ) -> Result<Self> {
        let abi = ABI::V6;
        let read = AccessFs::from_read(abi);
        let devices: &[&str] = match sockets {
            // What PostgreSQL's processes share lies there.
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

    /// From here on nothing else is seen.
    pub(super) fn close(self) -> Result<()> {
        self.0.restrict_self().context("cannot close off what a confined program may see").map(drop)
    }
}

/// Where `program` is, if it is nowhere of the system's: its `bin`, and what lies beside that.
fn installation(program: &Path) -> Option<PathBuf> {
    let program = program.canonicalize().ok()?;
    if SYSTEM.iter().any(|directory| program.starts_with(directory)) {
        return None;
    }
    let bin = program.parent()?;
    // Above a `bin` are its libraries; nothing else is opened, and the root never.
    let above = bin.parent().filter(|above| bin.ends_with("bin") && above.parent().is_some());
    Some(above.unwrap_or(bin).to_owned())
}

/// System calls by which a program reaches others' memory, keys, files by number, namespaces, or
/// sockets unseen.
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

/// Refuses the system calls. Nothing is to be done where the processor is one whose calls are not
/// known: the account is another all the same.
pub(super) fn restrict(sockets: Sockets) -> Result<()> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(()) };
    if sockets == Sockets::All {
        return Ok(());
    }
    let apply = || {
        // Newer than what can be looked into: libraries take the older one then.
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
            // No other family, and of this one no kind that sends without being connected.
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
    // The kernel's second set of numbers for the same calls, x32.
    #[cfg(target_arch = "x86_64")]
    let rules = rules
        .into_iter()
        .flat_map(|(call, rules)| [(call, rules.clone()), (call | 0x4000_0000, rules)])
        .collect();
    let refused = SeccompAction::Errno(error.unsigned_abs());
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?.try_into()?)
}
