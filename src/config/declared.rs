//! Where GitLab itself keeps what, as its own configuration says: gitlab.yml of Rails, and
//! config.toml of Gitaly.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::host::Host;
use super::unit_files::Units;
use crate::host::{beneath, own};

/// Rails' configuration, by layout, and what relative paths in it are relative to.
const RAILS: [(&str, &str); 3] = [
    ("/var/opt/gitlab/gitlab-rails/etc/gitlab.yml", "/opt/gitlab/embedded/service/gitlab-rails"),
    ("/home/git/gitlab/config/gitlab.yml", "/home/git/gitlab"),
    ("/etc/gitlab/gitlab.yml", "/usr/share/gitlab"),
];
/// Gitaly's, where no unit names it.
const GITALY: [&str; 2] = ["/var/opt/gitlab/gitaly/config.toml", "/home/git/gitaly/config.toml"];
/// Bytes of such a file, at most. They lie in directories of GitLab's user, and may be anything.
const SIZE: u64 = 1 << 22;

/// Kinds of files, and the keys of gitlab.yml that say where they are.
/// config/initializers/1_settings.rb.
const KINDS: [(&str, &str, &[&str]); 14] = [
    ("shared files", "shared", &["path"]),
    ("uploads", "uploads", &["storage_path"]),
    ("LFS objects", "lfs", &["storage_path"]),
    ("artifacts", "artifacts", &["path", "storage_path"]),
    ("external diffs", "external_diffs", &["storage_path"]),
    ("packages", "packages", &["storage_path"]),
    ("the dependency proxy", "dependency_proxy", &["storage_path"]),
    ("Terraform states", "terraform_state", &["storage_path"]),
    ("secure files", "ci_secure_files", &["storage_path"]),
    ("Pages", "pages", &["path", "storage_path"]),
    ("what Pages serves", "pages.local_store", &["path"]),
    ("encrypted settings", "encrypted_settings", &["path"]),
    ("the container registry", "registry", &["path"]),
    ("logs of jobs", "gitlab_ci", &["builds_path"]),
];
/// The kinds that `object_store` has for all of them at once.
const OBJECTS: [&str; 9] = [
    "artifacts",
    "external_diffs",
    "lfs",
    "uploads",
    "packages",
    "dependency_proxy",
    "terraform_state",
    "ci_secure_files",
    "pages",
];
/// What is below [`KINDS`]' path of the uploads.
const UPLOADS: &str = "uploads";

/// A directory that GitLab keeps something in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// What it keeps there.
    pub what: String,
    /// The directory, absolute.
    pub path: PathBuf,
    /// The key that says so.
    pub key: String,
    /// The file with the key.
    pub file: PathBuf,
    /// GitLab uses it: its section is not switched off.
    pub enabled: bool,
}

/// gitlab.yml, as far as it can be read.
pub struct Rails {
    /// The file.
    pub file: PathBuf,
    production: BTreeMap<String, Value>,
    root: PathBuf,
}

/// Every gitlab.yml of the host that is read by somebody: where the layouts have it, and in the
/// directories of `configuration`.
///
/// # Errors
/// Each that is there and cannot be read or understood.
pub fn rails(host: &Host, configuration: &[PathBuf]) -> Vec<Result<Rails>> {
    let known = RAILS.iter().map(|(file, root)| (PathBuf::from(file), PathBuf::from(root)));
    // Some are files: secrets, each by itself.
    let directories = configuration.iter().filter(|path| own::is_directory(&host.path(path)));
    let others = directories.map(|directory| {
        let root = directory.parent().unwrap_or(Path::new("/")).to_owned();
        (directory.join("gitlab.yml"), root)
    });
    let mut files: BTreeMap<PathBuf, PathBuf> = others.collect();
    files.extend(known);
    files.into_iter().filter_map(|(file, root)| Rails::read(host, file, root).transpose()).collect()
}

/// A storage of another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its name.
    pub storage: String,
    /// Who serves it: a Gitaly, or a Praefect.
    pub address: String,
}

impl Rails {
    fn read(host: &Host, file: PathBuf, root: PathBuf) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct File {
            production: BTreeMap<String, Value>,
        }
        let Some(text) = text(host, &file)? else { return Ok(None) };
        // As Psych takes it: the last of two keys holds.
        let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins, with_snippet: false };
        let parsed: File = serde_saphyr::from_str_with_options(&text, options)
            .with_context(|| format!("{} cannot be understood", file.display()))?;
        Ok(Some(Self { file, production: parsed.production, root }))
    }

    /// Where it keeps what.
    pub fn directories(&self) -> Vec<Declared> {
        let declared = |what: String, key: String, path: &str| Declared {
            what,
            path: tidy(&self.root.join(path)),
            key,
            file: self.file.clone(),
            enabled: true,
        };
        let storages = self.storages().filter_map(|(name, key, path)| {
            Some(declared(format!("repositories of storage '{name}'"), key, path.as_str()?))
        });
        let kinds = KINDS.iter().filter_map(|(what, section, keys)| {
            let first = section.split('.').next().unwrap_or(section);
            let (section_values, values) = (self.section(first)?, self.section(section)?);
            let (key, path) = keys.iter().find_map(|key| Some((key, values[*key].as_str()?)))?;
            let mut found = declared((*what).to_owned(), format!("{section}.{key}"), path);
            if *section == "uploads" {
                found.path.push(UPLOADS);
            }
            found.enabled = section_values["enabled"] != Value::Bool(false);
            (!is_elsewhere(values) && !self.is_consolidated(first)).then_some(found)
        });
        storages
            .chain(kinds)
            .chain(self.avatars())
            .filter(|declared| !is_computed(&declared.path))
            .collect()
    }

    /// The storages of other hosts, by their addresses. `own` is this host's name.
    pub fn remote(&self, own: &str) -> Vec<Remote> {
        let storages =
            self.production.get("repositories").and_then(|section| section["storages"].as_object());
        let remote = |(name, storage): (&String, &Value)| {
            let address = storage["gitaly_address"].as_str()?;
            let is_known = is_local(address, own) || is_computed(Path::new(address));
            (!is_known).then(|| Remote { storage: name.clone(), address: address.to_owned() })
        };
        storages.into_iter().flatten().filter_map(remote).collect()
    }

    /// Where avatars and the like are, if that is beside the other uploads.
    fn avatars(&self) -> Option<Declared> {
        let values = self.section("uploads")?;
        let storage = self.root.join(values["storage_path"].as_str().unwrap_or("public"));
        let path = tidy(&storage.join(values["base_dir"].as_str()?));
        let beside = !path.starts_with(tidy(&storage.join(UPLOADS)));
        (beside && !is_elsewhere(values) && !self.is_consolidated("uploads")).then(|| Declared {
            what: "avatars".to_owned(),
            path,
            key: "uploads.base_dir".to_owned(),
            file: self.file.clone(),
            enabled: true,
        })
    }

    /// The keys whose values Ruby computes when GitLab reads them, so that they are known to nobody
    /// else.
    pub fn computed(&self) -> Vec<String> {
        let storages = self.storages().map(|(_, key, path)| (key, path));
        let kinds = KINDS.iter().flat_map(|(_, section, keys)| {
            let values = self.section(section);
            keys.iter().filter_map(move |key| Some((format!("{section}.{key}"), &values?[*key])))
        });
        storages
            .chain(kinds)
            .filter(|(_, value)| value.as_str().is_some_and(|text| is_computed(Path::new(text))))
            .map(|(key, _)| key)
            .collect()
    }

    /// The name of each storage, with the key of its path and what that is set to.
    fn storages(&self) -> impl Iterator<Item = (&String, String, &Value)> {
        let storages =
            self.production.get("repositories").and_then(|section| section["storages"].as_object());
        storages.into_iter().flatten().map(|(name, storage)| {
            (name, format!("repositories.storages.{name}.path"), &storage["path"])
        })
    }

    /// A section, by a name with a dot one below another.
    fn section(&self, name: &str) -> Option<&Value> {
        let (first, below) =
            name.split_once('.').map_or((name, None), |(first, below)| (first, Some(below)));
        let values = self.production.get(first)?;
        Some(below.map_or(values, |below| &values[below]))
    }

    /// Whether the consolidated form has objects of this kind in object storage.
    fn is_consolidated(&self, section: &str) -> bool {
        let Some(storage) = self.production.get("object_store") else { return false };
        OBJECTS.contains(&section)
            && is_true(&storage["enabled"])
            && storage["objects"][section]["enabled"] != Value::Bool(false)
    }

    /// The kinds of objects for which object storage is enabled; the consolidated form has it for
    /// all of them at once.
    pub fn elsewhere(&self) -> Vec<&str> {
        let all =
            self.production.get("object_store").is_some_and(|store| is_true(&store["enabled"]));
        let kinds = self
            .production
            .iter()
            .filter(|(_, values)| is_elsewhere(values))
            .map(|(name, _)| name.as_str());
        all.then_some("everything that can be is").into_iter().chain(kinds).collect()
    }
}

/// Without a slash at its end.
fn tidy(path: &Path) -> PathBuf {
    path.components().collect()
}

/// Whether a Gitaly is on this host, by its address: `unix:/socket`, `tcp://host:port`,
/// `tls://host:port`, `dns://authority/host:port`.
fn is_local(address: &str, own: &str) -> bool {
    let Some((scheme, rest)) = address.split_once(':') else { return true };
    if scheme.eq_ignore_ascii_case("unix") {
        return true;
    }
    let rest = rest.trim_matches('/');
    let place = rest.rsplit('/').next().unwrap_or(rest);
    let host = match place.strip_prefix('[') {
        Some(literal) => literal.split(']').next().unwrap_or(literal),
        None => place.rsplit_once(':').map_or(place, |(host, _)| host),
    };
    let first = |name: &str| name.split('.').next().map(str::to_lowercase);
    let is_own = host.eq_ignore_ascii_case(own)
        || host.chars().any(char::is_alphabetic)
            && !host.contains(':')
            && first(host) == first(own);
    matches!(host, "localhost" | "::1") || host.starts_with("127.") || is_own
}

/// Ruby's templates are played when GitLab reads the file.
fn is_computed(path: &Path) -> bool {
    path.to_string_lossy().contains("<%")
}

fn is_elsewhere(section: &Value) -> bool {
    is_true(&section["object_store"]["enabled"])
}

fn is_true(value: &Value) -> bool {
    *value == Value::Bool(true)
}

/// What a Gitaly of this host is configured with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gitaly {
    /// Its storages.
    pub storages: Vec<Declared>,
    /// The directory of the hooks that an admin has made.
    pub hooks: Option<PathBuf>,
}

/// Every Gitaly of the host: by the file that its unit names, and where the layouts have it.
///
/// # Errors
/// Each configuration that is there and cannot be read or understood.
pub fn gitaly(host: &Host) -> Vec<Result<Gitaly>> {
    gitaly_of(host, &Units::of(host).unwrap_or_default())
}

/// The same, of a host whose unit files are known.
pub(super) fn gitaly_of(host: &Host, units: &Units) -> Vec<Result<Gitaly>> {
    let named = units.arguments("gitaly", ".toml");
    let files: BTreeSet<PathBuf> = named.into_iter().chain(GITALY.map(PathBuf::from)).collect();
    files.into_iter().filter_map(|file| Gitaly::read(host, file).transpose()).collect()
}

impl Gitaly {
    fn read(host: &Host, file: PathBuf) -> Result<Option<Self>> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct File {
            storage: Vec<Storage>,
            hooks: Hooks,
        }
        #[derive(Deserialize)]
        struct Storage {
            name: String,
            path: PathBuf,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Hooks {
            custom_hooks_dir: Option<PathBuf>,
        }
        let Some(text) = text(host, &file)? else { return Ok(None) };
        let parsed: File = toml::from_str(&text)
            .with_context(|| format!("{} cannot be understood", file.display()))?;
        let declared = |storage: Storage| Declared {
            what: format!("repositories of storage '{}'", storage.name),
            path: tidy(&storage.path),
            key: "storage.path".to_owned(),
            file: file.clone(),
            enabled: true,
        };
        Ok(Some(Self {
            storages: parsed.storage.into_iter().map(declared).collect(),
            hooks: parsed.hooks.custom_hooks_dir,
        }))
    }
}

/// The directories of both that are there: what a layout adds to where GitLab usually has its
/// files. What cannot be read is told by a run.
pub(super) fn data(host: &Host, units: &Units, configuration: &[PathBuf]) -> Vec<PathBuf> {
    let rails =
        rails(host, configuration).into_iter().flatten().flat_map(|rails| rails.directories());
    let gitaly = gitaly_of(host, units).into_iter().flatten().flat_map(|gitaly| gitaly.storages);
    rails
        .chain(gitaly)
        .map(|declared| declared.path)
        .filter(|path| path.is_absolute() && host.path(path).exists())
        .collect()
}

/// What is in `file`; nothing if it is not there.
fn text(host: &Host, file: &Path) -> Result<Option<String>> {
    match beneath::read_text(&host.path(file), SIZE) {
        Err(error) if beneath::is_missing(&error) => Ok(None),
        text => text.map(Some).with_context(|| format!("cannot read {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let host = Host::new(root.path());
        (root, host)
    }

    fn declared(yml: &str) -> Vec<(String, String)> {
        let (_root, host) = host(&[("home/git/gitlab/config/gitlab.yml", yml)]);
        let rails = rails(&host, &[]).pop().unwrap().unwrap();
        rails
            .directories()
            .into_iter()
            .map(|found| (found.key, found.path.display().to_string()))
            .collect()
    }

    #[test]
    fn every_storage_and_every_kind_is_found() {
        let yml = "production: &base\n  gitlab: {host: x}\n  repositories:\n    storages: # several\n      default:\n        path: /home/git/repositories/\n      \
                   fast:\n        path: /mnt/fast\n      remote:\n        gitaly_address: tcp://x:1\n  shared:\n    # path: /mnt/no\n  lfs:\n    enabled: true\n    \
                   storage_path: /mnt/lfs\n  uploads:\n    storage_path: /mnt/public\n  gitlab_ci:\n    builds_path: builds/\n  artifacts:\n    path: /mnt/a\n    \
                   object_store:\n      enabled: true\n  pages:\n    path: /mnt/pages\n    local_store:\n      path: /mnt/served\n  encrypted_settings:\n    \
                   path: /mnt/encrypted\ntest:\n  <<: *base\n";
        let found = declared(yml);
        let expected = [
            ("repositories.storages.default.path", "/home/git/repositories"),
            ("repositories.storages.fast.path", "/mnt/fast"),
            ("uploads.storage_path", "/mnt/public/uploads"),
            ("lfs.storage_path", "/mnt/lfs"),
            ("pages.path", "/mnt/pages"),
            ("pages.local_store.path", "/mnt/served"),
            ("encrypted_settings.path", "/mnt/encrypted"),
            ("gitlab_ci.builds_path", "/home/git/gitlab/builds"),
        ];
        assert_eq!(found, expected.map(|(key, path)| (key.to_owned(), path.to_owned())));
        let avatars = |uploads: &str| {
            declared(&format!("production:\n  uploads:\n{uploads}"))
                .pop()
                .map(|(key, path)| format!("{key} {path}"))
        };
        assert_eq!(avatars("    base_dir: uploads/-/system\n"), None);
        assert_eq!(
            avatars("    base_dir: system\n").unwrap(),
            "uploads.base_dir /home/git/gitlab/public/system"
        );
        let beside = avatars("    storage_path: /mnt\n    base_dir: system/\n");
        assert_eq!(beside.unwrap(), "uploads.base_dir /mnt/system");
        // As NixOS writes it.
        let json = r#"{"production":{"repositories":{"storages":{"default":{"path":"/srv/r"}}},"shared":{"path":"/srv/s"}}}"#;
        assert_eq!(declared(json).len(), 2);
    }

    #[test]
    fn what_is_switched_off_elsewhere_or_computed_is_none_that_must_be_saved() {
        let yml = "production:\n  registry:\n    enabled: false\n    path: /mnt/registry\n  object_store:\n    enabled: true\n    objects:\n      pages:\n        \
                   enabled: false\n  lfs:\n    storage_path: /mnt/lfs\n  pages:\n    path: /mnt/pages\n  shared:\n    path: <%= ENV['X'] %>\n";
        let (_root, host) = host(&[("home/git/gitlab/config/gitlab.yml", yml)]);
        let rails = rails(&host, &[]).pop().unwrap().unwrap();
        let found: Vec<_> =
            rails.directories().into_iter().map(|found| (found.key, found.enabled)).collect();
        assert_eq!(found, [("pages.path".to_owned(), true), ("registry.path".to_owned(), false)]);
        assert_eq!(rails.computed(), ["shared.path"]);
    }

    #[test]
    fn storages_of_other_hosts_are_known_by_their_addresses() {
        for (address, local) in [
            ("unix:/run/gitaly/gitaly.socket", true),
            ("tcp://localhost:8075", true),
            ("tcp://127.0.0.1:8075", true),
            ("tls://[::1]:9999", true),
            ("tcp://lab:8075", true),
            ("tls://lab.example.com:9999", true),
            ("dns:///lab.example.com:9999", true),
            ("TCP://LAB:8075/", true),
            ("tcp://praefect:2305", false),
            ("tls://far.example.com:9999/", false),
            ("tcp://10.0.0.5:8075", false),
            ("dns://10.0.0.1:53/gitaly.internal:2305", false),
            ("tcp://[2001:db8::1]:8075", false),
        ] {
            let yml = format!(
                "production:\n  repositories:\n    storages:\n      default:\n        gitaly_address: {address}\n"
            );
            let (_root, host) = host(&[("home/git/gitlab/config/gitlab.yml", &yml)]);
            let rails = rails(&host, &[]).pop().unwrap().unwrap();
            assert_eq!(rails.remote("lab").is_empty(), local, "{address}");
        }
    }

    #[test]
    fn a_secret_among_the_configuration_is_no_directory_with_a_gitlab_yml() {
        let (_root, host) =
            host(&[("run/agenix/db", "secret"), ("srv/config/gitlab.yml", "production: {}")]);
        assert_eq!(
            rails(&host, &["/run/agenix/db", "/srv/config", "/none"].map(PathBuf::from)).len(),
            1
        );
        assert!(rails(&host, &[PathBuf::from("/run/agenix/db")]).is_empty());
    }

    #[test]
    fn what_is_elsewhere_is_found_in_either_form() {
        let elsewhere = |yml: &str| {
            let (_root, host) = host(&[("etc/gitlab/gitlab.yml", yml)]);
            let rails = rails(&host, &[]).pop().unwrap().unwrap();
            rails.elsewhere().into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let by_kind = "production: &base\n  gitlab:\n    host: x\n  artifacts:\n    enabled: true\n    object_store:\n      enabled: false\n      # enabled: true\n  \
                       lfs:\n    object_store:\n      enabled: true # since 2020\n      connection:\n        enabled: true\n  uploads:\n    object_store: {\"enabled\": true}\n  \
                       packages:\n    enabled: true\n";
        assert_eq!(elsewhere(by_kind), ["lfs", "uploads"]);
        assert_eq!(
            elsewhere("production:\n  object_store:\n    enabled: true\n    objects: {}\n"),
            ["everything that can be is"]
        );
        assert!(
            elsewhere(
                "production:\n  object_store:\n    enabled: false\n  pages:\n    enabled: true\n"
            )
            .is_empty()
        );
    }

    #[test]
    fn what_cannot_be_understood_is_an_error_and_ends() {
        let bomb = format!(
            "a0: &a0 [x]\n{}",
            (1..40)
                .map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}, *a{0}]\n", n - 1))
                .collect::<String>()
        );
        for yml in [
            "",
            "production",
            "production: [",
            "%\0",
            "<% erb %>\nproduction: {}\n",
            &format!("{bomb}production: {{x: *a39}}\n"),
        ] {
            let (_root, host) = host(&[("home/git/gitlab/config/gitlab.yml", yml)]);
            assert!(rails(&host, &[]).pop().unwrap().is_err(), "{}", &yml[..yml.len().min(40)]);
        }
    }

    #[test]
    fn gitaly_is_asked_by_what_its_unit_names() {
        let unit = "[Service]\nExecStart=/nix/store/x/bin/gitaly /nix/store/x-gitaly.toml\n";
        let toml = "socket_path = \"/x\"\n[[storage]]\nname = \"default\"\npath = \"/srv/r\"\n[[storage]]\nname = \"b\"\npath = \"/srv/b\"\n";
        let (_root, host) =
            host(&[("etc/systemd/system/gitaly.service", unit), ("nix/store/x-gitaly.toml", toml)]);
        let found: Vec<Declared> =
            gitaly(&host).into_iter().flat_map(|gitaly| gitaly.unwrap().storages).collect();
        assert_eq!(
            found.iter().map(|found| found.path.to_str().unwrap()).collect::<Vec<_>>(),
            ["/srv/r", "/srv/b"]
        );
    }
}
