//! The directories that GitLab's own configuration declares: gitlab.yml of Rails and config.toml
//! of Gitaly.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::host::Host;
use super::unit_files::Units;
use crate::host::{beneath, own};

/// gitlab.yml of each layout, and the directory that its relative paths start from.
const RAILS: [(&str, &str); 3] = [
    ("/var/opt/gitlab/gitlab-rails/etc/gitlab.yml", "/opt/gitlab/embedded/service/gitlab-rails"),
    ("/home/git/gitlab/config/gitlab.yml", "/home/git/gitlab"),
    ("/etc/gitlab/gitlab.yml", "/usr/share/gitlab"),
];
/// Gitaly's configuration, for hosts where no unit names it.
const GITALY: [&str; 2] = ["/var/opt/gitlab/gitaly/config.toml", "/home/git/gitaly/config.toml"];
/// The maximum size of a configuration file in bytes. GitLab's user owns the directories, so the
/// files are untrusted.
const SIZE_MAX: u64 = 1 << 22;

/// Each kind of files, its section of gitlab.yml, and the section's keys that name the directory;
/// see GitLab's config/initializers/1_settings.rb.
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
    ("Pages deployments", "pages.local_store", &["path"]),
    ("encrypted settings", "encrypted_settings", &["path"]),
    ("the container registry", "registry", &["path"]),
    ("job logs", "gitlab_ci", &["builds_path"]),
];
/// The kinds that the consolidated section `object_store` applies to.
const CONSOLIDATED: [&str; 9] = [
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
/// GitLab stores uploads in this directory below `uploads.storage_path`.
const UPLOADS: &str = "uploads";

/// A directory that GitLab's configuration declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// What the directory holds.
    pub what: String,
    /// The directory, absolute.
    pub path: PathBuf,
    /// The key that names the directory.
    pub key: String,
    /// The file that contains the key.
    pub file: PathBuf,
    /// Whether GitLab uses the directory: the section does not say `enabled: false`.
    pub enabled: bool,
}

/// The production settings of a gitlab.yml.
pub struct Rails {
    /// The file.
    pub file: PathBuf,
    production: BTreeMap<String, Value>,
    root: PathBuf,
}

/// Reads every gitlab.yml of the host: at the places of the layouts, and in the directories of
/// `configuration`.
///
/// # Errors
/// Each existing file that cannot be read or parsed.
pub fn rails(host: &Host, configuration: &[PathBuf]) -> Vec<Result<Rails>> {
    let known = RAILS.iter().map(|(file, root)| (PathBuf::from(file), PathBuf::from(root)));
    // `configuration` may also list single files, such as secrets.
    let directories = configuration.iter().filter(|path| own::is_directory(&host.path(path)));
    let others = directories.map(|directory| {
        let root = directory.parent().unwrap_or(Path::new("/")).to_owned();
        (directory.join("gitlab.yml"), root)
    });
    let mut files: BTreeMap<PathBuf, PathBuf> = others.collect();
    files.extend(known);
    files.into_iter().filter_map(|(file, root)| Rails::read(host, file, root).transpose()).collect()
}

/// A Git storage on another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The name of the storage.
    pub storage: String,
    /// The address of the Gitaly or Praefect that serves it.
    pub address: String,
}

impl Rails {
    fn read(host: &Host, file: PathBuf, root: PathBuf) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct File {
            production: BTreeMap<String, Value>,
        }
        let Some(text) = read_text(host, &file)? else { return Ok(None) };
        // Ruby's YAML parser uses the last of two equal keys.
        let options = serde_saphyr::options! {
            duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
            with_snippet: false
        };
        let parsed: File = serde_saphyr::from_str_with_options(&text, options)
            .with_context(|| format!("{} cannot be understood", file.display()))?;
        Ok(Some(Self { file, production: parsed.production, root }))
    }

    /// The directories of repositories and of all kinds of files that are not in object storage.
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
            (!in_object_storage(values) && !self.in_consolidated_storage(first)).then_some(found)
        });
        storages
            .chain(kinds)
            .chain(self.avatars())
            .filter(|declared| !is_computed(&declared.path))
            .collect()
    }

    /// The Git storages that are not on this host, whose name is `own`, judged by their addresses.
    pub fn remote_storages(&self, own: &str) -> Vec<Remote> {
        let storages =
            self.production.get("repositories").and_then(|section| section["storages"].as_object());
        let remote = |(name, storage): (&String, &Value)| {
            let address = storage["gitaly_address"].as_str()?;
            let is_remote = !is_local(address, own) && !is_computed(Path::new(address));
            is_remote.then(|| Remote { storage: name.clone(), address: address.to_owned() })
        };
        storages.into_iter().flatten().filter_map(remote).collect()
    }

    /// The directory `uploads.base_dir` of avatars, unless it lies inside the one of the other
    /// uploads.
    fn avatars(&self) -> Option<Declared> {
        let values = self.section("uploads")?;
        let storage = self.root.join(values["storage_path"].as_str().unwrap_or("public"));
        let path = tidy(&storage.join(values["base_dir"].as_str()?));
        let apart = !path.starts_with(tidy(&storage.join(UPLOADS)));
        let local = !in_object_storage(values) && !self.in_consolidated_storage("uploads");
        (apart && local).then(|| Declared {
            what: "avatars".to_owned(),
            path,
            key: "uploads.base_dir".to_owned(),
            file: self.file.clone(),
            enabled: true,
        })
    }

    /// The keys whose paths are ERB templates: only GitLab itself can evaluate them.
    pub fn computed_keys(&self) -> Vec<String> {
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

    /// The name of each Git storage, with the key of its path and the value of that key.
    fn storages(&self) -> impl Iterator<Item = (&String, String, &Value)> {
        let storages =
            self.production.get("repositories").and_then(|section| section["storages"].as_object());
        storages.into_iter().flatten().map(|(name, storage)| {
            (name, format!("repositories.storages.{name}.path"), &storage["path"])
        })
    }

    /// The section `name`; with `OUTER.INNER`, a section inside another.
    fn section(&self, name: &str) -> Option<&Value> {
        let (first, below) =
            name.split_once('.').map_or((name, None), |(first, below)| (first, Some(below)));
        let values = self.production.get(first)?;
        Some(below.map_or(values, |below| &values[below]))
    }

    /// Whether the consolidated section `object_store` puts objects of this kind into object
    /// storage.
    fn in_consolidated_storage(&self, section: &str) -> bool {
        let Some(storage) = self.production.get("object_store") else { return false };
        CONSOLIDATED.contains(&section)
            && is_true(&storage["enabled"])
            && storage["objects"][section]["enabled"] != Value::Bool(false)
    }

    /// The kinds of objects that are in object storage. The consolidated section counts as one
    /// kind, "all objects".
    pub fn in_object_storage(&self) -> Vec<&str> {
        let all =
            self.production.get("object_store").is_some_and(|store| is_true(&store["enabled"]));
        let kinds = self
            .production
            .iter()
            .filter(|(_, values)| in_object_storage(values))
            .map(|(name, _)| name.as_str());
        all.then_some("all objects").into_iter().chain(kinds).collect()
    }
}

/// `path` without a trailing slash.
fn tidy(path: &Path) -> PathBuf {
    path.components().collect()
}

/// Whether the `address` of a Gitaly is on this host, whose name is `own`. Forms: `unix:/socket`,
/// `tcp://host:port`, `tls://host:port`, `dns://authority/host:port`.
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

/// Whether the value is an ERB template, which Ruby evaluates when GitLab reads the file.
fn is_computed(path: &Path) -> bool {
    path.to_string_lossy().contains("<%")
}

/// Whether `section` itself enables object storage.
fn in_object_storage(section: &Value) -> bool {
    is_true(&section["object_store"]["enabled"])
}

fn is_true(value: &Value) -> bool {
    *value == Value::Bool(true)
}

/// The configuration of a Gitaly on this host.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gitaly {
    /// The directories of its storages.
    pub storages: Vec<Declared>,
    /// The directory of the custom server hooks.
    pub hooks: Option<PathBuf>,
}

/// Reads the configuration of every Gitaly of the host: the files that its units name, and those at
/// the places of the layouts.
///
/// # Errors
/// Each existing file that cannot be read or parsed.
pub fn gitaly(host: &Host) -> Vec<Result<Gitaly>> {
    gitaly_by_units(host, &Units::of(host).unwrap_or_default())
}

/// Like [`gitaly`], for a host whose unit files are already listed.
pub(super) fn gitaly_by_units(host: &Host, units: &Units) -> Vec<Result<Gitaly>> {
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
        let Some(text) = read_text(host, &file)? else { return Ok(None) };
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

/// The existing directories that gitlab.yml and Gitaly's configuration declare: a layout adds them
/// to the usual ones. Files that cannot be read are skipped here; every run reports them.
pub(super) fn existing_directories(
    host: &Host,
    units: &Units,
    configuration: &[PathBuf],
) -> Vec<PathBuf> {
    let rails =
        rails(host, configuration).into_iter().flatten().flat_map(|rails| rails.directories());
    let gitaly =
        gitaly_by_units(host, units).into_iter().flatten().flat_map(|gitaly| gitaly.storages);
    rails
        .chain(gitaly)
        .map(|declared| declared.path)
        .filter(|path| path.is_absolute() && host.path(path).exists())
        .collect()
}

/// The text of `file`; `None` if there is no such file.
fn read_text(host: &Host, file: &Path) -> Result<Option<String>> {
    match beneath::read_text(&host.path(file), SIZE_MAX) {
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
        let yml = "production: &base\n  gitlab: {host: x}\n  repositories:\n    storages: # \
                   several\n      default:\n        path: /home/git/repositories/\n      \
                   fast:\n        path: /mnt/fast\n      remote:\n        gitaly_address: \
                   tcp://x:1\n  shared:\n    # path: /mnt/no\n  lfs:\n    enabled: true\n    \
                   storage_path: /mnt/lfs\n  uploads:\n    storage_path: /mnt/public\n  \
                   gitlab_ci:\n    builds_path: builds/\n  artifacts:\n    path: /mnt/a\n    \
                   object_store:\n      enabled: true\n  pages:\n    path: /mnt/pages\n    \
                   local_store:\n      path: /mnt/served\n  encrypted_settings:\n    \
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
    fn disabled_computed_and_object_storage_directories_are_not_required() {
        let yml = "production:\n  registry:\n    enabled: false\n    path: /mnt/registry\n  \
                   object_store:\n    enabled: true\n    objects:\n      pages:\n        \
                   enabled: false\n  lfs:\n    storage_path: /mnt/lfs\n  pages:\n    path: \
                   /mnt/pages\n  shared:\n    path: <%= ENV['X'] %>\n";
        let (_root, host) = host(&[("home/git/gitlab/config/gitlab.yml", yml)]);
        let rails = rails(&host, &[]).pop().unwrap().unwrap();
        let found: Vec<_> =
            rails.directories().into_iter().map(|found| (found.key, found.enabled)).collect();
        assert_eq!(found, [("pages.path".to_owned(), true), ("registry.path".to_owned(), false)]);
        assert_eq!(rails.computed_keys(), ["shared.path"]);
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
                "production:\n  repositories:\n    storages:\n      default:\n        \
                 gitaly_address: {address}\n"
            );
            let (_root, host) = host(&[("home/git/gitlab/config/gitlab.yml", &yml)]);
            let rails = rails(&host, &[]).pop().unwrap().unwrap();
            assert_eq!(rails.remote_storages("lab").is_empty(), local, "{address}");
        }
    }

    #[test]
    fn a_file_among_the_configuration_is_not_searched_for_a_gitlab_yml() {
        let (_root, host) =
            host(&[("run/agenix/db", "secret"), ("srv/config/gitlab.yml", "production: {}")]);
        assert_eq!(
            rails(&host, &["/run/agenix/db", "/srv/config", "/none"].map(PathBuf::from)).len(),
            1
        );
        assert!(rails(&host, &[PathBuf::from("/run/agenix/db")]).is_empty());
    }

    #[test]
    fn object_storage_is_found_by_kind_and_consolidated() {
        let kinds = |yml: &str| {
            let (_root, host) = host(&[("etc/gitlab/gitlab.yml", yml)]);
            let rails = rails(&host, &[]).pop().unwrap().unwrap();
            rails.in_object_storage().into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let by_kind = "production: &base\n  gitlab:\n    host: x\n  artifacts:\n    enabled: \
                       true\n    object_store:\n      enabled: false\n      # enabled: true\n  \
                       lfs:\n    object_store:\n      enabled: true # since 2020\n      \
                       connection:\n        enabled: true\n  uploads:\n    object_store: \
                       {\"enabled\": true}\n  \
                       packages:\n    enabled: true\n";
        assert_eq!(kinds(by_kind), ["lfs", "uploads"]);
        assert_eq!(
            kinds("production:\n  object_store:\n    enabled: true\n    objects: {}\n"),
            ["all objects"]
        );
        assert!(
            kinds(
                "production:\n  object_store:\n    enabled: false\n  pages:\n    enabled: true\n"
            )
            .is_empty()
        );
    }

    #[test]
    fn an_invalid_file_is_an_error_and_parsing_ends() {
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
    fn gitaly_is_found_by_the_file_that_its_unit_names() {
        let unit = "[Service]\nExecStart=/nix/store/x/bin/gitaly /nix/store/x-gitaly.toml\n";
        let toml = "socket_path = \"/x\"\n[[storage]]\nname = \"default\"\npath \
                    = \"/srv/r\"\n[[storage]]\nname = \"b\"\npath = \"/srv/b\"\n";
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
