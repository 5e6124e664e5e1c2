//! The program `gitlab-backup`. The library contains its code.

use std::process::ExitCode;

fn main() -> ExitCode {
    gitlab_backup::cli::main()
}
