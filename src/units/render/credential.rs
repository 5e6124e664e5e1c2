//! The credentials of the units. The service manager reads them, so that a unit's user need not be
//! able to.

use std::path::Path;

use crate::config::Postgresql;
use crate::paths;
use crate::units::text::Text;
use crate::values::SecretSource;

use super::Renderer;

/// The repository's password.
pub const REPOSITORY: &str = "repository.password";
/// The variables for restic.
pub const ENVIRONMENT: &str = "repository.environment";
/// The configuration, for helpers that do not run as root.
pub const CONFIG: &str = "config.toml";
/// The facts of the host, for helpers that do not run as root.
pub const HOST: &str = "host.json";
/// The plan of a restore, for helpers that do not run as root.
pub const RESTORE_PLAN: &str = "restore-plan.json";
/// PostgreSQL's password.
pub const POSTGRESQL: &str = "postgresql.password";

/// The password of the Redis instance `name`.
pub fn redis(name: &str) -> String {
    format!("redis-{name}.password")
}

impl Renderer<'_> {
    /// The settings that give a unit the secrets of the repository, of PostgreSQL and of Redis.
    pub fn credentials(&self, repository: bool, postgresql: bool, redis: bool) -> Vec<Text> {
        let mut wanted: Vec<(String, &SecretSource)> = Vec::new();
        if repository {
            wanted.push((REPOSITORY.to_owned(), &self.config.repository.password));
        }
        if let Some(Postgresql { password: Some(password), .. }) =
            self.config.postgresql.as_ref().filter(|_| postgresql)
        {
            wanted.push((POSTGRESQL.to_owned(), password));
        }
        for instance in self.config.redis.iter().filter(|_| redis) {
            wanted.extend(
                instance.password.as_ref().map(|password| (self::redis(&instance.name), password)),
            );
        }
        let lines = wanted.into_iter().map(|(id, source)| line(&id, source));
        let environment = self.config.repository.environment_file.as_deref().filter(|_| repository);
        lines.chain(environment.map(|path| file(ENVIRONMENT, path))).collect()
    }
}

/// The settings that give a unit the configuration and the facts of the host.
pub fn configuration(source: &Path) -> Vec<Text> {
    vec![file(CONFIG, source), file(HOST, Path::new(paths::HOST))]
}

/// The setting that gives a unit one secret.
pub fn line(id: &str, source: &SecretSource) -> Text {
    match source {
        SecretSource::File(path) => file(id, path),
        // systemd looks up a name without '/' in its credential stores.
        SecretSource::Credential(name) => file(id, Path::new(name)),
        // Must keep its name, which is part of the encrypted data.
        SecretSource::Encrypted(name) => {
            Text::setting("LoadCredentialEncrypted", &Text::path(name))
        }
    }
}

/// The setting that gives a unit a file that only root can read.
pub fn file(id: &str, path: &Path) -> Text {
    Text::setting("LoadCredential", &Text::path(&format!("{id}:{}", path.to_string_lossy())))
}
