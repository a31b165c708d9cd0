//! Lists of hardware threads, as the kernel writes them.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// More than any kernel is built for: guards against a range that fills memory.
const MOST: u32 = 1 << 16;

/// Hardware threads by the system's numbers, written as the kernel writes them: `0-3,8`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuList(BTreeSet<u32>);

impl CpuList {
    /// The numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied()
    }

    /// Whether a hardware thread is among them.
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.contains(&cpu)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<u32> for CpuList {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        Self(cpus.into_iter().collect())
    }
}

impl FromStr for CpuList {
    type Err = Error;

    /// # Errors
    /// `invalid-input` for what is no such list.
    fn from_str(list: &str) -> Result<Self, Error> {
        if list.trim().is_empty() {
            return Ok(Self::default());
        }
        let ranges: Option<Vec<_>> = list.trim().split(',').map(range).collect();
        let ranges = ranges.ok_or_else(|| {
            Error::new("invalid-input", format!("`{list}` is no list of hardware threads"))
                .help("write it as the kernel does: `0-3,8`")
        })?;
        Ok(ranges.into_iter().flatten().collect())
    }
}

fn range(part: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < MOST).then_some(first..=last)
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut comma = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|next| *next == last + 1) {
                last = next;
            }
            match last == first {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

impl TryFrom<String> for CpuList {
    type Error = Error;

    fn try_from(list: String) -> Result<Self, Error> {
        list.parse()
    }
}

impl From<CpuList> for String {
    fn from(list: CpuList) -> Self {
        list.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_written_as_the_kernel_writes_it() {
        for list in ["", "0", "0-3", "0-3,8", "1,3,5-6,64-127"] {
            assert_eq!(list.parse::<CpuList>().unwrap().to_string(), list);
        }
        assert_eq!(" 2,0-1\n".parse::<CpuList>().unwrap().to_string(), "0-2");
        let list: CpuList = "0-1,5".parse().unwrap();
        assert!(list.contains(5) && !list.contains(2) && list.iter().eq([0, 1, 5]));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for list in ["a", "0-", "3-1", "0,,1", "-1", "0-4294967295", "65536"] {
            assert_eq!(list.parse::<CpuList>().unwrap_err().code(), "invalid-input", "{list}");
        }
    }
}
