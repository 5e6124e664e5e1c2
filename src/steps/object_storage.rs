//! Object storage: what GitLab keeps elsewhere is not in a backup, and whoever relies on it should know.

use std::path::Path;

use crate::config::host::Host;
use crate::finding::Finding;
use crate::host::beneath;

/// GitLab's configuration, by layout; what generates it writes plain YAML, a key a line.
const CONFIGURATIONS: [&str; 3] =
    ["/var/opt/gitlab/gitlab-rails/etc/gitlab.yml", "/home/git/gitlab/config/gitlab.yml", "/etc/gitlab/gitlab.yml"];

/// Bytes of such a configuration, at most.
const SIZE: u64 = 1 << 22;

/// Tells what is kept in object storage; nothing where nothing is.
pub fn finding(host: &Host) -> Option<Finding> {
    let texts = CONFIGURATIONS.iter().filter_map(|path| Some((path, beneath::read_text(&host.path(path), SIZE).ok()?)));
    let (path, kinds) = texts.map(|(path, text)| (path, in_use(&text))).find(|(_, kinds)| !kinds.is_empty())?;
    let words =
        format!("{} in object storage ({}): that is not in the backup, save it where it is", kinds.join(", "), Path::new(path).display());
    Some(Finding::warning("object storage", words))
}

/// The kinds of objects for which `object_store` is enabled; the consolidated form has it for all of them at once.
fn in_use(yaml: &str) -> Vec<String> {
    // The keys around the line, each with its indentation.
    let mut around: Vec<(usize, &str)> = Vec::new();
    let mut found: Vec<String> = Vec::new();
    for line in yaml.lines() {
        let text = line.trim_start();
        let Some((key, value)) = text.split_once(':').filter(|_| !text.starts_with(['#', '-'])) else { continue };
        let indentation = line.len() - text.len();
        around.retain(|(other, _)| *other < indentation);
        let value = value.split(" #").next().unwrap_or_default().trim();
        let inside: Vec<&str> = around.iter().map(|(_, key)| *key).collect();
        let owner = match (&inside[..], key) {
            ([.., owner, "object_store"], "enabled") if value == "true" => Some(*owner),
            ([.., owner], "object_store") if inline(value) => Some(*owner),
            _ => None,
        };
        if let Some(owner) = owner {
            // Right below the environment it is for everything.
            let name = if inside.iter().filter(|key| **key != "object_store").count() == 1 { "everything that can be is" } else { owner };
            if !found.iter().any(|other| other == name) {
                found.push(name.to_owned());
            }
        }
        around.push((indentation, key.trim()));
    }
    found
}

/// A mapping on the line itself, as JSON.
fn inline(value: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(value).is_ok_and(|value| value["enabled"] == serde_json::Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_elsewhere_is_found_in_either_form() {
        let by_kind = "production: &base\n  gitlab:\n    host: x\n  artifacts:\n    enabled: true\n    object_store:\n      enabled: false\n      # enabled: true\n  \
                       lfs:\n    object_store:\n      enabled: true # since 2020\n      connection:\n        enabled: true\n  uploads:\n    object_store: {\"enabled\": true}\n  \
                       packages:\n    enabled: true\n";
        assert_eq!(in_use(by_kind), ["lfs", "uploads"]);
        assert_eq!(in_use("production:\n  object_store:\n    enabled: true\n    objects: {}\n"), ["everything that can be is"]);
        assert!(in_use("production:\n  object_store:\n    enabled: false\n  pages:\n    enabled: true\n").is_empty());
        assert!(in_use("").is_empty());
    }
}
