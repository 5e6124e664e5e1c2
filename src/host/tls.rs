//! Whose cryptography TLS uses.

/// Sets it for the process; a second time is refused and harmless.
pub(crate) fn use_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
