//! Keys of the server: who may ask, and for what. Only their hashes are kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::priority::Priority;
use super::text::{Id, text_value};

/// A key that callers send as `Authorization: Bearer KEY` or `x-api-key: KEY`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// What logs and metrics call its owner; unique.
    pub name: Id,
    /// The SHA-256 of the key, as `pajamas keys new` prints it. A key is 32 random bytes: it needs no slow hash.
    pub sha256: Sha256,
    /// What it opens.
    #[serde(default = "infer")]
    pub scopes: Vec<Scope>,
    /// Its requests that may run and wait at the same time; more are refused with status 429.
    #[serde(default)]
    pub max_concurrent: Option<u32>,
    /// Its requests in a minute; more are refused with status 429. Each answer that is asked for counts.
    #[serde(default)]
    pub requests_per_minute: Option<u32>,
    /// The highest priority of its requests, and that of those that say none.
    #[serde(default)]
    pub priority: Option<Priority>,
    /// Its tokens in a minute, of prompts and answers; who has used them up is refused with status 429.
    #[serde(default)]
    pub tokens_per_minute: Option<u32>,
}

fn infer() -> Vec<Scope> {
    vec![Scope::Infer]
}

/// What a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Requests to models.
    Infer,
    /// `/metrics`.
    Metrics,
    /// `/admin`: models, plugins, configuration, events.
    Admin,
}

impl Scope {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }
}

/// A SHA-256, 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

text_value!(Sha256, "a SHA-256 of 64 hexadecimal digits", r"^[0-9a-fA-F]{64}$");

impl std::str::FromStr for Sha256 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("`{text}` is not a SHA-256: write its 64 hexadecimal digits");
        let digits = text.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 64 {
            return Err(refuse());
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| refuse())?;
            // `from_str_radix` takes a sign, too.
            if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| refuse())?;
        }
        Ok(Self(hash))
    }
}

impl std::fmt::Display for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_printed() {
        let text = "00ff".repeat(16);
        assert_eq!(text.parse::<Sha256>().unwrap().to_string(), text);
        for wrong in ["", "00", &"+f".repeat(32), &"0g".repeat(32), &"00".repeat(33), &"é".repeat(32)] {
            assert!(wrong.parse::<Sha256>().is_err(), "{wrong}");
        }
    }
}
