//! The cryptography of TLS.

/// Selects ring for the process. Has no effect the second time.
pub(crate) fn use_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
