//! Checks that only root can change the programs that root runs and the repository, and that only
//! root can read files with secrets.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::config::Config;
use crate::finding::Finding;
use crate::host::beneath;
use crate::values::SecretSource;

/// Mode bits: the group or others may read the file.
const OTHERS_READ: u32 = 0o044;

/// A warning for each program, repository or secret of the configuration that other accounts can
/// change or read. The configuration file itself is checked when it is loaded.
pub fn findings(config: &Config) -> Vec<Finding> {
    let mut warnings = changeable_programs(config);
    warnings.extend(changeable_repository(config));
    warnings.extend(secrets(config).into_iter().filter_map(exposed_secret));
    warnings.into_iter().map(|words| Finding::warning("permissions", words)).collect()
}

/// The programs that run as root and that another account can change.
fn changeable_programs(config: &Config) -> Vec<String> {
    let proxies =
        config.gitlab.proxies.iter().flat_map(|proxy| [&proxy.start, &proxy.stop, &proxy.status]);
    let steps = config.steps.iter().filter(|step| step.user.is_none()).map(|step| &step.command);
    let commands = steps.chain(proxies).chain(config.files.command.iter());
    let reports = config.monitoring.reports.iter().filter_map(|report| report.system().program());
    let mut programs: Vec<&str> =
        commands.filter_map(|command| command.first().map(String::as_str)).chain(reports).collect();
    programs.sort();
    programs.dedup();
    // A missing program is an error of another check.
    let existing = programs.into_iter().map(Path::new).filter(|program| program.exists());
    existing
        .filter_map(|program| {
            let error = beneath::trusted(program).err()?;
            Some(format!("root runs {}: {error:#}", program.display()))
        })
        .collect()
}

/// The repository, if it is a directory of this host that another account can change.
fn changeable_repository(config: &Config) -> Option<String> {
    let directory = config.repository.directory().filter(|repository| repository.exists())?;
    let error = beneath::trusted(directory).err()?;
    Some(format!("the repository: {error:#}"))
}

/// A warning if another account can change or read the secret at `path`.
fn exposed_secret(path: &Path) -> Option<String> {
    let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    if let Err(error) = beneath::trusted(path) {
        return Some(format!("{error:#}"));
    }
    let readable = metadata.permissions().mode() & OTHERS_READ != 0;
    readable.then(|| format!("others can read {}, a secret: chmod 600 {0}", path.display()))
}

/// The files of the configuration that hold secrets.
pub(crate) fn secrets(config: &Config) -> Vec<&Path> {
    let postgresql = config.postgresql.iter().filter_map(|postgresql| postgresql.password.as_ref());
    let redis = config.redis.iter().filter_map(|redis| redis.password.as_ref());
    let silences = config.monitoring.silences.iter().flat_map(|silence| silence.system().secrets());
    let reports = config.monitoring.reports.iter().flat_map(|report| report.system().secrets());
    let monitoring = silences.chain(reports).map(|(_, secret)| secret);
    let all =
        [&config.repository.password].into_iter().chain(postgresql).chain(redis).chain(monitoring);
    let files = all.filter_map(|source| match source {
        SecretSource::File(path) => Some(path.as_path()),
        SecretSource::Credential(_) | SecretSource::Encrypted(_) => None,
    });
    files.chain(config.repository.environment_file.as_deref()).collect()
}
