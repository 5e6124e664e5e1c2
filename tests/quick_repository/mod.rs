//! Repositories that open in a millisecond, for tests that are not about keys.
//!
//! A key file names the scrypt parameters that turn its password into the key that encrypts it.
//! Both engines choose parameters that cost half a second and 128 MiB for each opening. Here the
//! engine creates one repository for each test process; its key file is then encrypted again, with
//! the same master key and password, but with the smallest parameters; and each test gets a copy.
//! The program reads such a key file like any other and has no switch for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use aes256ctr_poly1305aes::aead::Aead;
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce};
use gitlab_backup::config::{EngineName, Repository};
use gitlab_backup::repository;
use gitlab_backup::values::SecretSource;
use rustic_core::repofile::KeyFile;

/// The password of every repository from here.
pub const PASSWORD: &str = "secret";

/// Creates a repository with [`PASSWORD`] in `location`, as `engine` creates it.
pub fn create(engine: EngineName, location: &Path) {
    static BUILTIN: OnceLock<Template> = OnceLock::new();
    static RESTIC: OnceLock<Template> = OnceLock::new();
    let template = match engine {
        EngineName::Builtin => &BUILTIN,
        EngineName::Restic => &RESTIC,
    };
    template.get_or_init(|| Template::new(engine)).copy_to(location);
}

/// An empty repository, in memory: a static directory would outlive the tests.
struct Template(Vec<Entry>);

struct Entry {
    path: PathBuf,
    mode: u32,
    /// `None` for a directory.
    content: Option<Vec<u8>>,
}

impl Template {
    fn new(engine: EngineName) -> Self {
        let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (location, password) = (place.path().join("repository"), place.path().join("password"));
        fs::write(&password, PASSWORD).unwrap();
        let config = Repository {
            engine,
            location: location.to_str().unwrap().to_owned(),
            password: SecretSource::File(password.clone()),
            environment_file: None,
        };
        assert!(repository::open(&config, &password, None, None).unwrap().init().unwrap());
        encrypt_key_again(&location.join("keys"));
        let mut entries = Vec::new();
        read(&location, Path::new(""), &mut entries);
        Self(entries)
    }

    fn copy_to(&self, location: &Path) {
        for Entry { path, mode, content } in &self.0 {
            let path = location.join(path);
            match content {
                Some(content) => fs::write(&path, content).unwrap(),
                None => fs::create_dir(&path).unwrap(),
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
    }
}

/// Reads `path` below `root`, and everything in it: a directory before what it contains.
fn read(root: &Path, path: &Path, entries: &mut Vec<Entry>) {
    let real = root.join(path);
    let metadata = real.metadata().unwrap();
    let content = metadata.is_file().then(|| fs::read(&real).unwrap());
    let mode = metadata.permissions().mode();
    entries.push(Entry { path: path.to_owned(), mode, content });
    if metadata.is_dir() {
        for entry in fs::read_dir(&real).unwrap() {
            read(root, &path.join(entry.unwrap().file_name()), entries);
        }
    }
}

/// Replaces the only key file in `keys` by one with the smallest scrypt parameters.
fn encrypt_key_again(keys: &Path) {
    let old = fs::read_dir(keys).unwrap().next().unwrap().unwrap().path();
    let mut key: KeyFile = serde_json::from_slice(&fs::read(&old).unwrap()).unwrap();
    // Any 16 bytes: each cipher encrypts one text.
    let (nonce, encrypted) = key.data.split_at(16);
    let master = cipher(&key).decrypt(Nonce::from_slice(nonce), encrypted).unwrap();
    (key.n, key.r, key.p) = (2, 1, 1);
    let encrypted = cipher(&key).encrypt(Nonce::from_slice(nonce), &*master).unwrap();
    key.data = [nonce, &encrypted].concat();

    // A file of a repository is named after the SHA-256 of its content.
    let unnamed = keys.with_file_name("unnamed");
    fs::write(&unnamed, serde_json::to_vec(&key).unwrap()).unwrap();
    let sum = Command::new("sha256sum").arg(&unnamed).output().unwrap();
    let name = String::from_utf8(sum.stdout).unwrap();
    fs::rename(&unnamed, keys.join(name.split(' ').next().unwrap())).unwrap();
    fs::remove_file(old).unwrap();
}

/// What [`PASSWORD`] and the scrypt parameters of `key` encrypt the master key with.
fn cipher(key: &KeyFile) -> Aes256CtrPoly1305Aes {
    let (encryption, mac_k, mac_r) = key.kdf_key(&PASSWORD).unwrap().to_keys();
    Aes256CtrPoly1305Aes::new(Key::from_slice(&[encryption, mac_k, mac_r].concat()))
}
