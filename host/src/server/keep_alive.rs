//! How long a model stays in memory after a request: Ollama's field `keep_alive`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::Period;
use crate::pipeline::Keep;

/// The most seconds that count: more than the world is old, and few enough to be added to any time of a clock.
const MOST: f64 = 1e18;

/// A duration such as `"5m"` or `"1h30m"`, or seconds. 0 frees the model when nobody uses it any more; less than 0 keeps it
/// until others need the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Written")]
#[schemars(with = "Written")]
pub struct KeepAlive(pub Keep);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a duration such as \"5m\", or seconds")]
#[schemars(rename = "KeepAlive")]
enum Written {
    Seconds(f64),
    #[schemars(extend("pattern" = r"^-?([0-9]{1,9}|([0-9]{1,9}(ms|s|m|h|d)){1,3})$"))]
    Duration(String),
}

impl TryFrom<Written> for KeepAlive {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Seconds(seconds) => Ok(of_seconds(seconds)),
            Written::Duration(text) => match text.parse::<i32>() {
                Ok(seconds) => Ok(of_seconds(seconds.into())),
                Err(_) => of_text(&text).ok_or_else(|| {
                    format!("`{text}` is no duration: write numbers with ms, s, m, h or d, for example \"1h30m\", or seconds")
                }),
            },
        }
        .map(Self)
    }
}

/// What is less than 0, or no number, keeps for ever.
fn of_seconds(seconds: f64) -> Keep {
    Duration::try_from_secs_f64(seconds.min(MOST)).map_or(Keep::Always, Keep::For)
}

/// One part after the other, each a number with its unit.
fn of_text(text: &str) -> Option<Keep> {
    let (negative, mut rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    if rest.is_empty() {
        return None;
    }
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let end = rest[unit..].find(|c: char| !c.is_ascii_alphabetic()).map_or(rest.len(), |end| unit + end);
        let (part, after) = rest.split_at(end);
        sum = sum.checked_add(part.parse::<Period>().ok()?.duration())?;
        rest = after;
    }
    Some(if negative { Keep::Always } else { Keep::For(sum) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<Keep, String> {
        serde_json::from_value::<KeepAlive>(value).map(|keep| keep.0).map_err(|error| error.to_string())
    }

    #[test]
    fn all_that_ollama_takes_is_taken() {
        let seconds = |seconds| Ok(Keep::For(Duration::from_secs(seconds)));
        for (written, keep) in [
            (json!("5m"), seconds(300)),
            (json!("1h30m"), seconds(5400)),
            (json!(90), seconds(90)),
            (json!("90"), seconds(90)),
            (json!(0), seconds(0)),
            (json!("0s"), seconds(0)),
            (json!(-1), Ok(Keep::Always)),
            (json!("-1m"), Ok(Keep::Always)),
            (json!(1e300), Ok(Keep::For(Duration::from_secs(1_000_000_000_000_000_000)))),
            (json!(0.5), Ok(Keep::For(Duration::from_millis(500)))),
        ] {
            assert_eq!(read(written.clone()), keep, "{written}");
        }
    }

    #[test]
    fn what_is_no_time_is_told_what_is() {
        for wrong in ["", "-", "m", "5 parsecs", "1h30", "5m!", "NaN", "1e400", "é", "5é"] {
            let error = read(json!(wrong)).unwrap_err();
            assert!(error.contains("is no duration") && error.contains("1h30m"), "{wrong}: {error}");
        }
        assert!(read(json!(true)).unwrap_err().contains("a duration such as"));
        assert!(read(json!({ "minutes": 5 })).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in ".{0,16}") {
            let _ = read(json!(text));
        }
    }
}
