//! Models that run elsewhere: another server with OpenAI's API, and what its answers cost.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::quantity::{ByteSize, Period};
use super::text::text_value;

/// A model of another server with OpenAI's API: vLLM, SGLang, llama-server, another pajamas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// Where its API begins: `/chat/completions` and the others are below it.
    pub url: BaseUrl,
    /// What that server calls the model.
    pub model: String,
    /// The environment variable that holds the key to send. The key itself never stands in the configuration.
    #[serde(default)]
    pub key_env: Option<String>,
    /// The most tokens of a request that it takes, as far as the choice of a model goes.
    #[serde(default)]
    pub context_length: Option<u32>,
    /// Requests that it works on at the same time, as far as predictions go; it is not held to it.
    #[serde(default = "parallel")]
    pub parallel: u32,
    /// The longest that a connection may take to come about.
    #[serde(default = "connect")]
    pub connect: Period,
    /// The longest that it may say nothing, before its answer and within it.
    #[serde(default = "silence")]
    pub silence: Period,
    /// The most bytes of an answer that are read.
    #[serde(default = "max_answer")]
    pub max_answer: ByteSize,
    /// Failures in a row after which it is left alone for a while.
    #[serde(default = "failures")]
    pub failures: u32,
    /// How long it is left alone at first; each time that it fails again twice as long.
    #[serde(default = "rest")]
    pub rest: Period,
    /// The longest that it is left alone.
    #[serde(default = "max_rest")]
    pub max_rest: Period,
}

fn parallel() -> u32 {
    32
}

fn connect() -> Period {
    Period::seconds(5)
}

fn silence() -> Period {
    Period::seconds(60)
}

fn max_answer() -> ByteSize {
    ByteSize::mib(64)
}

fn failures() -> u32 {
    3
}

fn rest() -> Period {
    Period::seconds(1)
}

fn max_rest() -> Period {
    Period::seconds(60)
}

/// Where an API begins. Without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseUrl(String);

text_value!(BaseUrl, "an address such as \"http://10.0.0.5:8000/v1\"", r"^https?://[^/?#@\s]+(/[^?#\s]*)?$");

impl BaseUrl {
    /// The address of something below it; `path` begins with a slash.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// Host and port, as they are written.
    pub fn authority(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("{why}: write it like \"http://10.0.0.5:8000/v1\""));
        let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
            return refuse("an address begins with http:// or https://");
        };
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if host.contains('@') {
            // What stands there may be secret: it is not repeated.
            return refuse(
                "the address holds a name or a password: put the key into a variable, and its name into `key_env`",
            );
        }
        if host.is_empty() || host.starts_with(':') {
            return refuse("the address names no host");
        }
        if rest.contains(['?', '#']) || !rest.bytes().all(|b| b.is_ascii_graphic()) {
            return refuse("the address has a query, a fragment, spaces or letters that are not ASCII");
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a million tokens cost, in whatever money the operator counts; kept in millionths, so that costs compare exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(u64);

impl Cost {
    /// The largest that is meant in earnest: a double has its millionths exactly.
    const MOST: f64 = 1e9;

    /// Of so many millionths.
    pub const fn millionths(millionths: u64) -> Self {
        Self(millionths)
    }

    /// In millionths.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0 as f64 / 1e6)
    }
}

impl Serialize for Cost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / 1e6)
    }
}

impl<'de> Deserialize<'de> for Cost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let cost = f64::deserialize(deserializer)?;
        if (0.0..=Self::MOST).contains(&cost) {
            Ok(Self((cost * 1e6).round() as u64))
        } else {
            Err(serde::de::Error::custom(format!(
                "`{cost}` is no cost: write a number from 0 to {}",
                Self::MOST
            )))
        }
    }
}

impl JsonSchema for Cost {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cost".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "number",
            "minimum": 0,
            "description": "what a million tokens cost, in whatever money you count",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_beginning_and_holds_no_secret() {
        for (text, url, authority) in [
            ("http://10.0.0.5:8000/v1", "http://10.0.0.5:8000/v1/models", "10.0.0.5:8000"),
            ("https://api.example.com/v1/", "https://api.example.com/v1/models", "api.example.com"),
            ("http://[::1]:80", "http://[::1]:80/models", "[::1]:80"),
        ] {
            let base: BaseUrl = text.parse().unwrap();
            assert_eq!((base.join("/models").as_str(), base.authority()), (url, authority));
            assert_eq!(base.to_string().parse(), Ok(base));
        }
        for text in [
            "",
            "10.0.0.5:8000",
            "ftp://x",
            "http://",
            "http://:80",
            "http:///v1",
            "http://x/v1?a=b",
            "http://x y",
        ] {
            assert!(text.parse::<BaseUrl>().is_err(), "{text}");
        }
        let secret = "https://user:hunter2@example.com/v1".parse::<BaseUrl>().unwrap_err();
        assert!(secret.contains("key_env") && !secret.contains("hunter2"), "{secret}");
    }

    #[test]
    fn a_cost_is_read_as_it_is_written() {
        for cost in ["0", "0.15", "15", "0.000001"] {
            let read: Cost = serde_json::from_str(cost).unwrap();
            assert_eq!(read.to_string(), cost);
            assert_eq!(serde_json::from_str::<Cost>(&serde_json::to_string(&read).unwrap()).unwrap(), read);
        }
        for cost in ["-1", "1e300", "\"1\"", "null"] {
            assert!(serde_json::from_str::<Cost>(cost).is_err(), "{cost}");
        }
    }
}
