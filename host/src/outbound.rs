//! What asking other servers has in common: whom TLS trusts, and keys that are shown nowhere.

use std::sync::Arc;

use ureq::tls::{RootCerts, TlsConfig};

/// How this program names itself.
pub(crate) const USER_AGENT: &str = concat!("pajamas/", env!("CARGO_PKG_VERSION"));

/// What is never written anywhere.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Secret {
    /// A key as it comes from a variable or a file; `None` when it is none that a header could hold.
    pub(crate) fn of(key: &str) -> Option<Self> {
        let key = key.trim();
        (!key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(key.to_owned()))
    }

    /// The `Authorization` that shows it to a server.
    pub(crate) fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// The words without the key, should a server repeat it.
    pub(crate) fn out_of(&self, words: &str) -> String {
        words.replace(&self.0, "…")
    }
}

/// The roots of trust are the system's, so that an operator's own authority is trusted where the system does.
pub(crate) fn tls() -> TlsConfig {
    TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let secret = Secret::of(" sk-abc\n").unwrap();
        assert_eq!(format!("{secret:?}"), "…");
        assert_eq!(secret.authorization(), "Bearer sk-abc");
        assert_eq!(secret.out_of("wrong key: sk-abc"), "wrong key: …");
        assert!(Secret::of(" ").is_none() && Secret::of("a\nb").is_none());
    }
}
