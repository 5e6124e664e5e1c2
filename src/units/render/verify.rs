//! The unit that verifies the newest run: no part of any run.

use askama::Template;

use super::{Renderer, Sandbox, Text};

#[derive(Template)]
#[template(path = "verify.service")]
pub(super) struct VerifyService {
    exec: Text,
    mounts: Option<Text>,
    credentials: Vec<Text>,
    sandbox: Sandbox,
}

impl Renderer<'_> {
    /// Reads the repository and never writes it; what it lays out belongs to many users, and what
    /// reads that runs as an account of its own, confined by system calls that older systemds do
    /// not count among those of a service.
    pub(super) fn verify(&self) -> VerifyService {
        let capabilities = "CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE CAP_CHOWN CAP_FOWNER CAP_FSETID CAP_SETUID CAP_SETGID CAP_KILL";
        VerifyService {
            exec: self.helper(&["verify"]),
            mounts: self.repository_path(),
            credentials: self.credentials(true, false, false),
            sandbox: Sandbox {
                network: self.repository_path().is_none(),
                foreign: true,
                set_id: true,
                confines: true,
                ..self.sandbox(capabilities)
            },
        }
    }
}
