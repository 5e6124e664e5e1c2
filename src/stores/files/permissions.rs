//! Who else can change what root obeys or relies upon, and read what is secret.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::config::Config;
use crate::finding::Finding;
use crate::host::beneath;
use crate::values::SecretSource;

/// Everybody but the owner may read it.
const OTHERS_READ: u32 = 0o044;

/// What others can change or read, of all that the configuration names. The configuration itself is
/// refused as it is read.
pub fn findings(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let proxies =
        config.gitlab.proxies.iter().flat_map(|proxy| [&proxy.start, &proxy.stop, &proxy.status]);
    let steps = config.steps.iter().filter(|step| step.user.is_none()).map(|step| &step.command);
    let commands = steps.chain(proxies).chain(config.files.command.iter());
    let reports = config.monitoring.reports.iter().filter_map(|report| report.system().program());
    let mut programs: Vec<&str> =
        commands.filter_map(|command| command.first().map(String::as_str)).chain(reports).collect();
    programs.sort();
    programs.dedup();
    // One that is not there is told elsewhere.
    for program in programs.into_iter().map(Path::new).filter(|program| program.exists()) {
        if let Err(error) = beneath::trusted(program) {
            findings.push(Finding::warning(
                "permissions",
                format!("root runs {}: {error:#}", program.display()),
            ));
        }
    }
    // One elsewhere has no path here.
    if let Some(repository) = config.repository.directory().filter(|repository| repository.exists())
    {
        let trusted = beneath::trusted(repository);
        findings.extend(
            trusted
                .err()
                .map(|error| Finding::warning("permissions", format!("the repository: {error:#}"))),
        );
    }
    for path in secrets(config) {
        let Some(metadata) = path.metadata().ok().filter(std::fs::Metadata::is_file) else {
            continue;
        };
        if let Err(error) = beneath::trusted(path) {
            findings.push(Finding::warning("permissions", format!("{error:#}")));
        } else if metadata.permissions().mode() & OTHERS_READ != 0 {
            findings.push(Finding::warning(
                "permissions",
                format!("others can read {}, a secret: chmod 600 {0}", path.display()),
            ));
        }
    }
    findings
}

/// The files with secrets.
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
