//! `gitlab-backup`: see the library for everything that it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    gitlab_backup::cli::main()
}
