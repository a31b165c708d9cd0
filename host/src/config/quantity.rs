//! Sizes, durations and shares as people write them: `"512MiB"`, `"120s"`, `0.6`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text::text_value;

/// A number of bytes, written with its unit: `"512MiB"`, `"1.5GiB"`, `"64KB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

text_value!(ByteSize, "a size such as \"512MiB\"", r"^[0-9]+(\.[0-9]+)? ?(B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)$");

/// Largest first, the powers of 1024 before the powers of 1000: the order in which [`ByteSize`] picks one to print.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// This many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// This many times 1024 * 1024 bytes.
    pub const fn mib(mebibytes: u64) -> Self {
        Self(mebibytes << 20)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of bytes for memory of this process: all of the address space when it is more than that.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_quantity(text, &SIZE_UNITS)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a size: write a number and B, KiB, MiB, GiB, TiB (or KB, MB, GB, TB), for example \"512MiB\""))
    }
}

impl fmt::Display for ByteSize {
    /// Exact: in the largest unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_quantity(f, self.0, &SIZE_UNITS)
    }
}

/// A length of time, written with its unit: `"500ms"`, `"120s"`, `"10m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u64);

text_value!(Period, "a duration such as \"120s\"", r"^[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d)$");

/// In milliseconds.
const PERIOD_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Period {
    /// This many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds * 1000)
    }

    /// This many milliseconds.
    pub const fn milliseconds(milliseconds: u64) -> Self {
        Self(milliseconds)
    }

    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_quantity(text, &PERIOD_UNITS).map(Self).ok_or_else(|| {
            format!("`{text}` is not a duration: write a number and ms, s, m, h or d, for example \"120s\"")
        })
    }
}

impl fmt::Display for Period {
    /// Exact: in the largest unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_quantity(f, self.0, &PERIOD_UNITS)
    }
}

/// A share, written as a number from 0 to 1 and kept in thousandths, so that it is the same however it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u16);

impl Share {
    /// So many thousandths; 1000 are all.
    pub const fn thousandths(thousandths: u16) -> Self {
        Self(if thousandths > 1000 { 1000 } else { thousandths })
    }

    /// In thousandths.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 1000.0)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        if (0.0..=1.0).contains(&number) {
            Ok(Self((number * 1000.0).round() as u16))
        } else {
            Err(D::Error::custom(format!(
                "{number} is no share: write a number from 0 to 1, for example 0.6"
            )))
        }
    }
}

impl JsonSchema for Share {
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": 1, "description": "a share from 0 to 1" })
    }
}

/// `number unit`, multiplied out; fractions are rounded to the smallest unit. `None` when it is neither or too large.
fn parse_quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(*factor),
        Err(_) => {
            let product = (number.parse::<f64>().ok()? * *factor as f64).round();
            // Beyond 2^53 a fraction is no longer exact, and no such size or time is meant in earnest.
            (product <= (1_u64 << 53) as f64).then_some(product as u64)
        }
    }
}

fn print_quantity(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let smallest = units.last().copied().unwrap_or(("", 1));
    let (unit, factor) = units
        .iter()
        .copied()
        .find(|(_, factor)| value != 0 && value.is_multiple_of(*factor))
        .unwrap_or(smallest);
    // Through `pad`, so that tables can align it.
    f.pad(&format!("{}{unit}", value / factor))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_know_both_families_of_units() {
        for (text, bytes) in [
            ("0B", 0),
            ("512MiB", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("64 KB", 64_000),
            (" 2TB ", 2_000_000_000_000),
        ] {
            assert_eq!(text.parse::<ByteSize>().map(ByteSize::get), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_told_what_is() {
        for text in ["", "512", "MiB", "512mib", "-1B", "1.2.3B", "1e3B", "99999999999TiB", "1 .5B", "½GiB"]
        {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        insta::assert_snapshot!("512mb".parse::<ByteSize>().unwrap_err(), @r#"`512mb` is not a size: write a number and B, KiB, MiB, GiB, TiB (or KB, MB, GB, TB), for example "512MiB""#);
    }

    #[test]
    fn periods_go_from_milliseconds_to_days() {
        for (text, milliseconds) in
            [("500ms", 500), ("120s", 120_000), ("1.5m", 90_000), ("2h", 7_200_000), ("1d", 86_400_000)]
        {
            assert_eq!(text.parse::<Period>(), Ok(Period::milliseconds(milliseconds)), "{text}");
        }
        insta::assert_snapshot!("120".parse::<Period>().unwrap_err(), @r#"`120` is not a duration: write a number and ms, s, m, h or d, for example "120s""#);
    }

    #[test]
    fn a_share_is_kept_in_thousandths() {
        let read =
            |text: &str| serde_json::from_str::<Share>(text).map(Share::get).map_err(|e| e.to_string());
        assert_eq!([read("0"), read("0.6"), read("0.1234"), read("1")], [Ok(0), Ok(600), Ok(123), Ok(1000)]);
        for wrong in ["-0.1", "1.5", "60"] {
            assert!(read(wrong).unwrap_err().contains("no share"), "{wrong}");
        }
        assert_eq!(serde_json::to_string(&Share::thousandths(873)).unwrap(), "0.873");
        assert_eq!(Share::thousandths(4000).get(), 1000);
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(n in any::<u64>()) {
            prop_assert_eq!(ByteSize::bytes(n).to_string().parse(), Ok(ByteSize::bytes(n)));
            prop_assert_eq!(Period::milliseconds(n).to_string().parse(), Ok(Period::milliseconds(n)));
        }

        #[test]
        fn no_text_makes_parsing_panic(text in ".{0,24}") {
            let _ = text.parse::<ByteSize>();
            let _ = text.parse::<Period>();
        }
    }
}
