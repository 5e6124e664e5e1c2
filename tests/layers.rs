//! Imports point downwards: src/README.md lists the layers from the top, and a module imports only
//! modules on lines below its own. Only the commands name the host: all other code takes the root
//! directory, the clock and the service manager as parameters, and the program's own files are
//! below that root directory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path)
}

/// The line of each module in the list.
fn layers(page: &str) -> BTreeMap<&str, usize> {
    let list = page.split("```text\n").nth(1).and_then(|rest| rest.split("```").next());
    let lines = list.expect("src/README.md lists the layers").lines().enumerate();
    lines.flat_map(|(at, line)| line.split_whitespace().map(move |module| (module, at))).collect()
}

/// The modules at the root of the crate that `text` names; `say` and `note` are macros of `host`.
fn named(text: &str) -> Vec<(usize, String)> {
    let name = |text: &str| {
        text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>()
    };
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        // A path with `$crate` is an import of the module that uses the macro; a visibility imports
        // nothing.
        if ["$", "pub(", "pub(in "].iter().any(|before| text[..at].ends_with(before)) {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        let line = text[..at].lines().count();
        match rest.strip_prefix('{') {
            Some(group) => {
                let (mut depth, mut start) = (0, true);
                for (index, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && c.is_alphabetic() => {
                            found.push((line, name(&group[index..])));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
            None => found.push((line, name(rest))),
        }
    }
    let macros =
        |name: String| if name == "say" || name == "note" { "host".to_owned() } else { name };
    found.into_iter().map(|(line, name)| (line, macros(name))).collect()
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The imports in `text`, a file of `module`, from its own layer or from a higher one.
fn climbing(module: &str, text: &str, layers: &BTreeMap<&str, usize>) -> Vec<String> {
    let own = layers[module];
    let wrong = |(line, other): (usize, String)| {
        let below = other == module || layers.get(other.as_str()).is_some_and(|layer| *layer > own);
        (!below).then(|| format!("line {line}: {module} uses {other}"))
    };
    named(text).into_iter().filter_map(wrong).collect()
}

#[test]
fn nothing_is_imported_from_a_layer_above() {
    let library = fs::read_to_string(source("lib.rs")).unwrap();
    let page = fs::read_to_string(source("README.md")).unwrap();
    let layers = layers(&page);
    let modules: Vec<&str> = library
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    assert!(modules.len() > 10);
    for module in modules {
        assert!(layers.contains_key(module), "{module} is in no layer");
        let mut found = vec![source(&format!("{module}.rs"))];
        let folder = source(module);
        if folder.is_dir() {
            files(&folder, &mut found);
        }
        for path in found {
            let problems = climbing(module, &fs::read_to_string(&path).unwrap(), &layers);
            assert!(problems.is_empty(), "{}: {}", path.display(), problems.join(", "));
        }
    }
}

/// The names that refer to the host: its root directory, its clock, its journal and its service
/// manager.
const HOST: [&str; 8] = [
    "RootDirectory::host",
    "Timestamp::now",
    "SystemTime::now",
    "HostClock",
    "HostJournal",
    "Manager::connect",
    "Base::host",
    // The function, which opens its own connection; not the method of a service manager.
    " start_later(",
];

/// The code that may name the host: the commands, which pass it on, and its definitions.
const NAMES_THE_HOST: [&str; 5] =
    ["commands/", "main.rs", "host/clock.rs", "machine.rs", "systemd"];

/// The code of `text`: without comments and without the tests at its end. Its lines keep their
/// numbers.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let lines = code.lines().map(|line| match line.trim_start().starts_with("//") {
        true => "",
        false => line,
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The lines of `text` that name the host, with their numbers. The tests at its end are ignored.
fn naming_the_host(text: &str) -> Vec<String> {
    let code = code(text);
    let named = (1..).zip(code.lines()).filter_map(|(number, line)| {
        let name = HOST.into_iter().find(|name| line.contains(name))?;
        Some(format!("line {number}: {name}"))
    });
    named.collect()
}

/// The code that may use a path of `paths.rs` directly instead of below a root directory.
const NOT_BELOW_THE_ROOT: [(&str, &str); 10] = [
    // A path in a snapshot of the repository: the same for every host and root directory.
    ("catalog.rs", "Path::new(paths::MANIFEST)"),
    ("run/manifest.rs", "&[paths::MANIFEST.into()]"),
    // The default of an option or of a configuration key. The commands open it.
    ("cli.rs", "default_value = paths::CONFIG"),
    ("config/validate/repository.rs", "SecretSource::File(PathBuf::from(paths::PASSWORD))"),
    // Compared with the configuration, but never opened.
    ("host/remedy.rs", "&[paths::PASSWORD_ON_NIXOS]"),
    ("host/remedy.rs", "&[paths::PASSWORD, paths::PASSWORD_ON_NIXOS]"),
    ("host/secret.rs", "use crate::paths::TMP;"),
    // Compared with the end of a path, which is below any root directory.
    ("runs/record.rs", "relative(paths::STATE)"),
    ("runs/record.rs", "relative(paths::PAUSED)"),
    ("runs/record.rs", "relative(paths::RESTORE_JOURNAL)"),
];

/// The directories of the program's own files. Only `paths.rs` spells them.
const OWN: [&str; 3] = ["\"/var/lib/gitlab-backup", "\"/run/gitlab-backup", "\"/etc/gitlab-backup"];

/// The paths of the program's own files in `text` that do not go through `RootDirectory::at`, with
/// their lines.
fn beside_the_root(text: &str) -> Vec<String> {
    let code = code(text);
    let line = |at: usize| code[..at].matches('\n').count() + 1;
    let mut found = Vec::new();
    for (at, module) in code.match_indices("paths::") {
        let (before, rest) = (&code[..at], &code[at + module.len()..]);
        // The names that are imported, or the one that is used.
        let names = match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap_or_default(),
            None => rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap(),
        };
        let before = before.trim_end_matches("crate::").trim_end();
        let names = names.split(',').map(str::trim).filter(|name| {
            // The constants are paths; the others are `RootDirectory` and `self`.
            !name.is_empty() && !name.contains(char::is_lowercase) && !before.ends_with(".at(")
        });
        found.extend(names.map(|name| format!("line {}: paths::{name}", line(at))));
    }
    for own in OWN {
        found.extend(code.match_indices(own).map(|(at, _)| format!("line {}: {own}", line(at))));
    }
    found
}

/// The files of the program, except those of tests, such as stores/moves/tests.rs: the path below
/// `src` of each, and its text.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&source(""), &mut found);
    let named = found.into_iter().map(|path| {
        let name = path.strip_prefix(source("")).unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(&path).unwrap())
    });
    named.filter(|(name, _)| !name.ends_with("/tests.rs")).collect()
}

#[test]
fn only_the_commands_name_the_host() {
    let mut problems = Vec::new();
    for (name, text) in sources() {
        if !NAMES_THE_HOST.iter().any(|allowed| name.starts_with(allowed)) {
            let lines = naming_the_host(&text);
            problems.extend(lines.into_iter().map(|line| format!("src/{name}, {line}")));
        }
    }
    assert!(
        problems.is_empty(),
        "take the root directory, the clock or the service manager as a parameter \
         (src/machine.rs): {}",
        problems.join("; ")
    );
}

#[test]
fn own_files_are_below_the_root_directory() {
    // The units name the files for systemd, which has no other root directory.
    const AS_ON_THE_HOST: [&str; 3] = ["commands/", "units", "paths.rs"];
    let mut problems = Vec::new();
    for (name, mut text) in sources() {
        for (_, allowed) in NOT_BELOW_THE_ROOT.iter().filter(|(file, _)| *file == name) {
            assert!(text.contains(allowed), "src/{name} has no {allowed} any more: unlist it");
            text = text.replacen(allowed, "", 1);
        }
        if !AS_ON_THE_HOST.iter().any(|allowed| name.starts_with(allowed)) {
            let lines = beside_the_root(&text);
            problems.extend(lines.into_iter().map(|line| format!("src/{name}, {line}")));
        }
    }
    assert!(
        problems.is_empty(),
        "name a file of this program by root.at(paths::NAME) (src/paths.rs): {}",
        problems.join("; ")
    );
}

#[test]
fn a_name_of_the_host_is_seen() {
    for (text, count) in [
        ("let root = &RootDirectory::host();\n", 1),
        ("fn f() {\n    (Timestamp::now(), std::time::SystemTime::now())\n}\nManager::connect", 2),
        ("let finished = record.finished.unwrap_or_else(Timestamp::now);\n", 1),
        ("/// As [`Manager::connect`].\nfn f(root: &RootDirectory, now: Timestamp) {}\n", 0),
        ("fn f() {}\n\n#[cfg(test)]\nmod tests {\n    Base::host(root)\n}\n", 0),
    ] {
        assert_eq!(naming_the_host(text).len(), count, "{text}");
    }
}

#[test]
fn a_file_beside_the_root_directory_is_seen() {
    for (text, count) in [
        ("write_json(Path::new(paths::FREEZE), &plan)?;\n", 1),
        ("own::remove(paths::CLONES)\n", 1),
        ("View::load(\n    crate::paths::SEEN.as_ref(),\n)\n", 1),
        ("for path in [paths::STAGING, paths::REPOSITORY_KEY] {}\n", 2),
        ("use crate::paths::SEEN;\n", 1),
        ("use crate::paths::{self, FROZEN, RootDirectory, SEEN};\n", 2),
        ("own::remove(\"/run/gitlab-backup/freeze.json\")\n", 1),
        ("use crate::paths::{self, RootDirectory};\nuse crate::paths::RootDirectory;\n", 0),
        ("base.root.at(paths::PASS);\nroot\n    .at(\n        crate::paths::PARTS,\n    )\n", 0),
        ("// As in paths::SEEN.\n\n#[cfg(test)]\nmod tests {\n    paths::SEEN\n}\n", 0),
    ] {
        assert_eq!(beside_the_root(text).len(), count, "{text}");
    }
}

#[test]
fn no_store_imports_another() {
    // `inspection` and the like serve all stores.
    let is_store = |name: &String| source(&format!("stores/{name}/store.rs")).exists();
    let entries = fs::read_dir(source("stores")).unwrap();
    let folders = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let names = folders.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    let stores: Vec<String> = names.filter(is_store).collect();
    assert!(stores.len() >= 3, "{stores:?}");
    for store in &stores {
        let mut found = vec![source(&format!("stores/{store}.rs"))];
        files(&source(&format!("stores/{store}")), &mut found);
        for path in found {
            let text = fs::read_to_string(&path).unwrap();
            for other in stores.iter().filter(|other| *other != store) {
                let imports = text.contains(&format!("stores::{other}"));
                assert!(!imports, "{} imports stores::{other}", path.display());
            }
        }
    }
}

#[test]
fn an_import_from_above_is_seen() {
    let layers = layers("```text\nsteps\nruns units\nhost values\n```\n");
    for (text, count) in [
        ("use crate::steps::open;\n", 1),
        ("use crate::{host::own, units};\n", 1),
        ("use crate::units::{self, Unit};\nfn f() -> crate::steps::Failed { }\n", 2),
        (
            "use crate::runs::Record;\nuse crate::{host::{own, text}, values};\nfn f() { \
             say!(\"x\") }\n",
            0,
        ),
        ("pub(crate::steps) fn f() {}", 0),
    ] {
        assert_eq!(climbing("runs", text, &layers).len(), count, "{text}");
    }
}
