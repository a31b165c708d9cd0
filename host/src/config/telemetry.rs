//! Where traces go.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::text_value;

/// Traces of requests, for a collector of OpenTelemetry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Where the collector takes OTLP over HTTP, for example `http://127.0.0.1:4318`; no traces are made when not set.
    pub otlp: Option<Collector>,
}

/// The address of a collector. There is no TLS: a collector on this machine passes on what it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector(String);

text_value!(
    Collector,
    "the address of a collector such as \"http://127.0.0.1:4318\"",
    r"^http://[^/?#@\s]+(/[^?#\s]*)?$"
);

impl Collector {
    /// Where it takes traces.
    pub fn traces(&self) -> String {
        format!("{}/v1/traces", self.0.trim_end_matches('/'))
    }
}

impl FromStr for Collector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("`{text}` {why}: write it like \"http://127.0.0.1:4318\""));
        let Some(rest) = text.strip_prefix("http://") else {
            return refuse("does not begin with http://, and there is no TLS");
        };
        let host = rest.split('/').next().unwrap_or_default();
        if host.is_empty()
            || host.contains('@')
            || rest.contains(|c: char| c.is_whitespace() || "?#".contains(c))
        {
            return refuse("is no address of a collector");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_asked_at_its_path_for_traces() {
        let traces = |text: &str| text.parse::<Collector>().map(|collector| collector.traces());
        assert_eq!(traces("http://127.0.0.1:4318").as_deref(), Ok("http://127.0.0.1:4318/v1/traces"));
        assert_eq!(traces("http://otel:4318/team/").as_deref(), Ok("http://otel:4318/team/v1/traces"));
        for wrong in
            ["", "127.0.0.1:4318", "https://otel", "http://", "http:///x", "http://a b", "http://u:p@otel"]
        {
            assert!(traces(wrong).is_err(), "{wrong}");
        }
    }
}
