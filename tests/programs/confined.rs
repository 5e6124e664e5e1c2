//! `helper confine`: every barrier around a confined program is tested. Root runs the program under
//! another account; in these tests that is the host's `nobody`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const NOBODY: u32 = 65534;

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A temporary directory that the account of the tests can enter and write to.
fn place() -> tempfile::TempDir {
    let place = tempfile::Builder::new().prefix("confined-").tempdir_in("/tmp").unwrap();
    if root() {
        chown(place.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    place
}

fn confined(place: &Path, sockets: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gitlab-backup"));
    command
        .args(["helper", "confine", "--signal", "9", "--sockets", sockets])
        .arg("--parent")
        .arg(std::process::id().to_string());
    command.arg("--write").arg(place);
    if root() {
        command.args(["--user", "65534", "--group", "65534"]);
    }
    command.arg("--").args(words).current_dir(place).stdin(Stdio::null());
    command
}

fn shell(place: &Path, sockets: &str, script: &str) -> Output {
    confined(place, sockets, &["/bin/sh", "-c", script]).output().unwrap()
}

fn python(place: &Path, sockets: &str, script: &str) -> Output {
    confined(place, sockets, &["python3", "-c", script]).output().unwrap()
}

fn words(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn it_is_another_account_without_rights() {
    let place = place();
    let output = shell(
        place.path(),
        "none",
        "id -u; id -G; umask; grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|Seccomp):' \
         /proc/self/status || cat /proc/self/status",
    );
    let said = words(&output);
    if root() {
        assert!(said.starts_with("65534\n65534\n"), "{said}");
    }
    assert!(said.contains("0077"), "{said}");
    // With Landlock, the program cannot read /proc and prints no such lines.
    for line in said.lines().filter(|line| line.starts_with("Cap")) {
        assert!(line.ends_with("\t0000000000000000"), "{line}");
    }
    let python = python(
        place.path(),
        "none",
        "import ctypes; l = ctypes.CDLL(None); print(l.prctl(39, 0, 0, 0, 0), l.prctl(21, 0, 0, 0, \
         0), l.getsid(0) == __import__('os').getpid())",
    );
    assert!(words(&python).starts_with("1 "), "no new privileges: {}", words(&python));
    assert!(words(&python).trim().ends_with("True"), "a session of its own: {}", words(&python));
}

#[test]
fn it_sees_neither_others_files_nor_ours() {
    let (place, other) = (place(), tempfile::tempdir_in("/tmp").unwrap());
    fs::set_permissions(other.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let secret = other.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o666)).unwrap();
    let script = format!(
        "ls /root; cat /etc/shadow; cat {0}; ls {1}; echo x > {1}/new; ls /home; echo written > \
         here && cat here",
        secret.display(),
        other.path().display()
    );
    let said = words(&shell(place.path(), "none", &script));
    assert!(said.contains("written"), "it cannot write where it may: {said}");
    assert!(!said.contains("root:"), "{said}");
    if landlock() {
        assert!(!said.contains("secret\n") && !other.path().join("new").exists(), "{said}");
        assert!(said.matches("denied").count() >= 5, "{said}");
    } else if root() {
        panic!("this kernel has no Landlock: what it refuses cannot be shown");
    }
}

/// Whether the kernel has landlock(7).
fn landlock() -> bool {
    let ask =
        "import ctypes; print(ctypes.CDLL(None, use_errno=True).syscall(444, None, 0, 1) > 0)";
    words(&Command::new("python3").args(["-c", ask]).output().unwrap()).contains("True")
}

#[test]
fn it_reaches_neither_the_network_nor_a_socket() {
    let place = place();
    // A socket that every account can connect to, like that of the system bus.
    let listener = UnixListener::bind(place.path().join("bus")).unwrap();
    fs::set_permissions(place.path().join("bus"), fs::Permissions::from_mode(0o777)).unwrap();
    let script = |family: &str, kind: &str, then: &str| {
        format!(
            "import socket\ntry:\n s = socket.socket(socket.{family}, socket.{kind})\n {then}\n \
             print('reached')\nexcept OSError as e: print('refused', e)"
        )
    };
    for (family, kind) in [
        ("AF_INET", "SOCK_STREAM"),
        ("AF_INET6", "SOCK_STREAM"),
        ("AF_INET", "SOCK_DGRAM"),
        ("AF_NETLINK", "SOCK_RAW"),
        ("AF_UNIX", "SOCK_DGRAM"),
    ] {
        for sockets in ["none", "listening"] {
            let said = words(&python(place.path(), sockets, &script(family, kind, "pass")));
            assert!(said.contains("refused"), "{sockets} {family} {kind}: {said}");
        }
    }
    for sockets in ["none", "listening"] {
        let said = words(&python(
            place.path(),
            sockets,
            &script("AF_UNIX", "SOCK_STREAM", "s.connect('bus')"),
        ));
        assert!(said.contains("refused"), "{sockets}: {said}");
    }
    let said = words(&python(
        place.path(),
        "listening",
        &script("AF_UNIX", "SOCK_STREAM", "s.bind('own'); s.listen()"),
    ));
    assert!(said.contains("reached"), "a server has its socket: {said}");
    // Without the barrier the connection succeeds, so this test can fail.
    let said =
        words(&python(place.path(), "all", &script("AF_UNIX", "SOCK_STREAM", "s.connect('bus')")));
    assert!(said.contains("reached"), "{said}");
    drop(listener);
}

#[test]
fn system_calls_that_reach_others_are_refused() {
    let place = place();
    let script = "import ctypes, os
l = ctypes.CDLL(None, use_errno=True)
for name, call in [('unshare', (272, 0x10000000)), ('io_uring', (425, 1, 0)), ('ptrace', (101, 0, \
0, 0, 0)), ('keyctl', (250, 0, -3, 0)), ('clone3', (435, 0, 0))]:
    print(name, l.syscall(*call), ctypes.get_errno())
print('forked', os.waitpid(os.fork() or os._exit(7), 0)[1] >> 8)";
    let said = words(&python(place.path(), "none", script));
    if cfg!(target_arch = "x86_64") {
        for name in ["unshare -1 1", "io_uring -1 1", "ptrace -1 1", "keyctl -1 1", "clone3 -1 38"]
        {
            assert!(said.contains(name), "{name}: {said}");
        }
    }
    assert!(said.contains("forked 7"), "{said}");
}

#[test]
fn it_has_none_of_our_open_files() {
    let place = place();
    let secret = place.path().join("secret");
    fs::write(&secret, "of ours").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&secret, Some(0), Some(0)).ok();
    let program = env!("CARGO_BIN_EXE_gitlab-backup");
    let account = if root() { "--user 65534 --group 65534" } else { "" };
    let script = format!(
        "exec 7<{}; exec {program} helper confine --parent {} --signal 9 --sockets none --write {} \
         {account} -- /bin/sh -c 'cat <&7'",
        secret.display(),
        std::process::id(),
        place.path().display()
    );
    let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
    assert!(!words(&output).contains("of ours") && !output.status.success(), "{}", words(&output));
}

/// The processes whose command line ends with `word`, by their PIDs on the host.
fn running(word: &str) -> Vec<i32> {
    let of = |pid: &i32| {
        let said = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        said.trim_end_matches('\0').ends_with(&format!("\0{word}"))
    };
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(of)
        .collect()
}

/// How long the kernel may take to end processes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until no process of `word` runs, at most for `patience`. Ends those that still do, and
/// returns them.
fn left_after(patience: Duration, word: &str) -> Vec<i32> {
    let began = Instant::now();
    while !running(word).is_empty() && began.elapsed() < patience {
        sleep(Duration::from_millis(20));
    }
    let left = running(word);
    for pid in &left {
        let pid = rustix::process::Pid::from_raw(*pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    left
}

/// A number of seconds for which no other process sleeps.
fn seconds(own: u32) -> String {
    format!("{own}.{}", std::process::id())
}

#[test]
fn it_ends_with_its_parent_and_does_not_begin_without() {
    let place = place();
    let program = env!("CARGO_BIN_EXE_gitlab-backup");
    let account = if root() { "--user 65534 --group 65534" } else { "" };
    let asleep = seconds(1000);
    let confine = |parent: &str| {
        format!(
            "{program} helper confine --parent {parent} --signal 9 --sockets none --write {} \
             {account} -- /bin/sleep {asleep}",
            place.path().display()
        )
    };
    let mut parent =
        Command::new("/bin/sh").args(["-c", &format!("{} & wait", confine("$$"))]).spawn().unwrap();
    let wait = |what: &str, until: &dyn Fn(&[i32]) -> bool| {
        let started = Instant::now();
        while !until(&running(&asleep)) {
            assert!(started.elapsed() < Duration::from_secs(20), "{what}");
            sleep(Duration::from_millis(20));
        }
    };
    let is_asleep = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
    };
    wait("it did not begin", &|pids| pids.iter().any(is_asleep));
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait("it lives on without its parent", &<[i32]>::is_empty);
    let output = Command::new("/bin/sh")
        .args(["-c", &format!("{}; exit $?", confine("1"))])
        .output()
        .unwrap();
    assert!(words(&output).contains("the parent is gone"), "{}", words(&output));
}

#[test]
fn what_it_has_started_ends_with_it_if_root_confines_it() {
    let (place, asleep) = (place(), seconds(2000));
    let script = format!(
        "setsid sleep {asleep} >/dev/null 2>&1 </dev/null & (setsid sh -c 'sleep {asleep} & wait' \
         >/dev/null 2>&1 &) ; sleep 0.3; exit 7"
    );
    let output = shell(place.path(), "none", &script);
    assert_eq!(output.status.code(), Some(7), "{}", words(&output));
    // The kernel kills them when the first process of their namespace has ended, not earlier.
    let patience = if root() { PATIENCE } else { Duration::ZERO };
    let left = left_after(patience, &asleep);
    // Without root there is no PID namespace; in a unit, the control group takes its place.
    assert_eq!(left.is_empty(), root(), "{left:?}");
}

#[test]
fn it_cannot_give_up_being_ended_if_root_confines_it() {
    let (place, asleep) = (place(), seconds(3000));
    let script = format!(
        "import ctypes, os; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0); os.execv('/bin/sleep', \
         ['sleep', '{asleep}'])"
    );
    let mut outside = confined(place.path(), "none", &["python3", "-c", &script])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while running(&asleep).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "it did not begin");
        sleep(Duration::from_millis(20));
    }
    // Without root there is no namespace, and this process is the program itself.
    outside.kill().unwrap();
    outside.wait().unwrap();
    let left = left_after(PATIENCE, &asleep);
    assert!(left.is_empty(), "it lives on: {left:?}");
}

#[test]
fn root_is_no_account_for_it() {
    if !root() {
        return;
    }
    let place = place();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gitlab-backup"));
    command
        .args(["helper", "confine", "--signal", "9", "--user", "0", "--group", "0"])
        .arg("--parent")
        .arg(std::process::id().to_string());
    let output =
        command.arg("--write").arg(place.path()).args(["--", "/bin/true"]).output().unwrap();
    assert!(
        !output.status.success() && words(&output).contains("root is no account"),
        "{}",
        words(&output)
    );
}
