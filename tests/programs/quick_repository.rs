//! Repositories that open in a millisecond, for tests that are not about keys.
//!
//! A key file names the scrypt parameters that turn its password into the key that encrypts it.
//! Both engines choose parameters that cost half a second and 128 MiB for each opening.
//! `fixtures/repositories` has an empty repository of each engine, whose key file was encrypted
//! again, with the same master key and password, but with the smallest parameters. Each test gets a
//! copy. The program reads such a key file like any other and has no switch for it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use aes256ctr_poly1305aes::aead::Aead;
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce};
use gitlab_backup::config::{EngineName, Repository};
use gitlab_backup::repository::{self, Engine};
use gitlab_backup::values::SecretSource;
use rustic_core::repofile::KeyFile;

/// The password of every repository from here.
pub const PASSWORD: &str = "secret";

/// Creates a repository with [`PASSWORD`] in `location`, as `engine` creates it.
pub fn create(engine: EngineName, location: &Path) {
    // The built-in engine leaves the modes to the umask, which the program sets.
    let (directory_mode, file_mode, locks) = match engine {
        EngineName::Builtin => (0o777, 0o666, None),
        EngineName::Restic => (0o700, 0o400, Some("locks".to_owned())),
    };
    let data = (0..=255).map(|number: u8| format!("data/{number:02x}"));
    let others = ["index", "keys", "snapshots"].map(str::to_owned);
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(directory_mode);
    for directory in data.chain(others).chain(locks) {
        builder.create(location.join(directory)).unwrap();
    }
    let fixture = fixture(engine);
    let key = Path::new("keys").join(key_file(&fixture).file_name().unwrap());
    for path in [Path::new("config"), &key] {
        let content = fs::read(fixture.join(path)).unwrap();
        let mut new = fs::OpenOptions::new();
        new.write(true).create_new(true).mode(file_mode);
        new.open(location.join(path)).unwrap().write_all(&content).unwrap();
    }
}

/// Opens a repository with the password in a file, and with a kept key, if there is one.
pub fn open(
    engine: EngineName,
    location: String,
    password: &Path,
    key: Option<&Path>,
) -> Box<dyn Engine> {
    let config = Repository {
        engine,
        location,
        password: SecretSource::File(password.to_owned()),
        environment_file: None,
    };
    repository::open(&config, password, None, key).unwrap()
}

/// Adds a key with `password` to a repository from here.
pub fn add_key(location: &Path, password: &str) {
    let first = fs::read(key_file(location)).unwrap();
    let mut key: KeyFile = serde_json::from_slice(&first).unwrap();
    encrypt_again(&mut key, password);
    write_key(&location.join("keys"), &key);
}

/// Makes the fixture of `engine` from a new repository of its own.
pub fn record(engine: EngineName, new: &Path) {
    encrypt_key_again(&key_file(new));
    let fixture = fixture(engine);
    let _ = fs::remove_dir_all(&fixture);
    fs::create_dir_all(fixture.join("keys")).unwrap();
    let key = key_file(new);
    fs::write(fixture.join("config"), fs::read(new.join("config")).unwrap()).unwrap();
    let recorded = fixture.join("keys").join(key.file_name().unwrap());
    fs::write(recorded, fs::read(key).unwrap()).unwrap();
}

fn fixture(engine: EngineName) -> PathBuf {
    let name = match engine {
        EngineName::Builtin => "builtin",
        EngineName::Restic => "restic",
    };
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/repositories").join(name)
}

/// The only key file of a repository.
fn key_file(repository: &Path) -> PathBuf {
    let mut keys = fs::read_dir(repository.join("keys")).unwrap();
    let key = keys.next().unwrap().unwrap().path();
    assert!(keys.next().is_none(), "{} has several keys", repository.display());
    key
}

/// Replaces a key file by one with the smallest scrypt parameters.
fn encrypt_key_again(old: &Path) {
    let mut key: KeyFile = serde_json::from_slice(&fs::read(old).unwrap()).unwrap();
    encrypt_again(&mut key, PASSWORD);
    write_key(old.parent().unwrap(), &key);
    fs::remove_file(old).unwrap();
}

/// Encrypts the master key of `key`, which [`PASSWORD`] opens, with `password` and the smallest
/// scrypt parameters.
fn encrypt_again(key: &mut KeyFile, password: &str) {
    // Any 16 bytes: each cipher encrypts one text.
    let (nonce, encrypted) = key.data.split_at(16);
    let master = cipher(key, PASSWORD).decrypt(Nonce::from_slice(nonce), encrypted).unwrap();
    (key.n, key.r, key.p) = (2, 1, 1);
    let encrypted = cipher(key, password).encrypt(Nonce::from_slice(nonce), &*master).unwrap();
    key.data = [nonce, &encrypted].concat();
}

/// Writes a key file. Like each file of a repository it is named after the SHA-256 of its content.
fn write_key(keys: &Path, key: &KeyFile) {
    let unnamed = keys.join("unnamed");
    fs::write(&unnamed, serde_json::to_vec(key).unwrap()).unwrap();
    let sum = Command::new("sha256sum").arg(&unnamed).output().unwrap();
    let name = String::from_utf8(sum.stdout).unwrap();
    fs::rename(&unnamed, keys.join(name.split(' ').next().unwrap())).unwrap();
}

/// What `password` and the scrypt parameters of `key` encrypt the master key with.
fn cipher(key: &KeyFile, password: &str) -> Aes256CtrPoly1305Aes {
    let (encryption, mac_k, mac_r) = key.kdf_key(&password).unwrap().to_keys();
    Aes256CtrPoly1305Aes::new(Key::from_slice(&[encryption, mac_k, mac_r].concat()))
}
