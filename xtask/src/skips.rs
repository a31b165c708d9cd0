//! What the tests left out, and for want of what. They say it on standard error, `skipped: WHY`, which test runners keep to
//! themselves where a test passes.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::ValueEnum;

/// What begins a line of a test that leaves something out.
const MARK: &str = "skipped: ";
/// Names what may not be missing, separated by commas.
const REQUIRED: &str = "PAJAMAS_REQUIRE";
/// How many different reasons are printed.
const SHOWN: usize = 12;

/// What checks want beyond what the build needs. Each is brought by a command, and may be required.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Want {
    /// Real models, pictures and recordings, beside the repository.
    Assets,
    /// What checks the dependencies.
    CargoDeny,
    /// The browser that tries the server's page.
    Chromium,
    /// The library of the `onnxruntime` backend.
    Onnxruntime,
    /// The Python programs that ours is compared with.
    Peers,
}

impl Want {
    /// What every reason names that comes of its absence.
    fn mark(self) -> &'static str {
        match self {
            Self::Assets => "shared/assets",
            Self::CargoDeny => "cargo-deny",
            Self::Chromium => "Chromium",
            Self::Onnxruntime => "onnxruntime",
            Self::Peers => "cargo xtask peers",
        }
    }

    /// What it is, and what brings it.
    fn told(self) -> &'static str {
        match self {
            Self::Assets => "test data in ../shared/assets, which is not part of the repository",
            Self::CargoDeny => "cargo-deny: cargo install --locked cargo-deny",
            Self::Chromium => "Chromium: on Debian and Ubuntu, sudo apt-get install chromium",
            Self::Onnxruntime => "ONNX Runtime: cargo xtask fetch-onnxruntime",
            Self::Peers => "the Python programs to compare with: cargo xtask peers",
        }
    }

    fn of(reason: &str) -> Option<Self> {
        Self::value_variants().iter().copied().find(|want| reason.contains(want.mark()))
    }

    /// What `$PAJAMAS_REQUIRE` names.
    ///
    /// # Errors
    /// When it names something else.
    pub fn required() -> Result<Vec<Self>> {
        Self::parse(&std::env::var(REQUIRED).unwrap_or_default())
    }

    fn parse(names: &str) -> Result<Vec<Self>> {
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        names
            .map(|name| match Self::from_str(name, false) {
                Ok(want) => Ok(want),
                Err(_) => {
                    let known: Vec<_> =
                        Self::value_variants().iter().filter_map(Self::to_possible_value).collect();
                    let known: Vec<_> = known.iter().map(|value| value.get_name()).collect();
                    bail!("{REQUIRED} names `{name}`; there are {}", known.join(", "))
                }
            })
            .collect()
    }
}

/// The reasons of what was left out, each with how often it was given.
#[derive(Debug, Default)]
pub struct Skips(BTreeMap<String, usize>);

impl Skips {
    /// Those in what tests printed, be it as it was printed or within the XML of a report.
    pub fn of(output: &str) -> Self {
        let mut found = Self::default();
        for line in output.lines() {
            // In XML the first line of an output follows its tag.
            let line = line.rsplit_once("<system-err>").map_or(line, |(_, rest)| rest);
            let reason = line.trim_start().strip_prefix(MARK);
            if let Some(reason) = reason.map(|rest| rest.split("</system-").next().unwrap_or(rest)) {
                *found.0.entry(plain(reason.trim_end())).or_default() += 1;
            }
        }
        found
    }

    /// Takes others in.
    pub fn add(&mut self, others: Self) {
        for (reason, count) in others.0 {
            *self.0.entry(reason).or_default() += count;
        }
    }

    /// How much was left out.
    pub fn count(&self) -> usize {
        self.0.values().sum()
    }

    /// A line for each reason, the most frequent first; what one thing would cure is told once.
    pub fn lines(&self) -> Vec<String> {
        let mut told: BTreeMap<&str, usize> = BTreeMap::new();
        for (reason, count) in &self.0 {
            let told_as: &str = match Want::of(reason) {
                Some(want) => want.told(),
                None => reason,
            };
            *told.entry(told_as).or_default() += count;
        }
        let mut told: Vec<_> = told.into_iter().collect();
        told.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let rest: usize = told.iter().skip(SHOWN).map(|(_, count)| count).sum();
        let mut lines: Vec<_> =
            told.iter().take(SHOWN).map(|(reason, count)| format!("{count:>4}  {reason}")).collect();
        if rest > 0 {
            lines.push(format!("{rest:>4}  for other reasons"));
        }
        lines
    }

    /// Fails when something was left out for want of what is required.
    ///
    /// # Errors
    /// The reasons, as the tests gave them.
    pub fn allow(&self, required: &[Want]) -> Result<()> {
        let refused = |reason: &&String| Want::of(reason).is_some_and(|want| required.contains(&want));
        let refused: Vec<_> = self.0.keys().filter(refused).map(String::as_str).collect();
        if !refused.is_empty() {
            bail!("{REQUIRED} does not let these be skipped:\n    {}", refused.join("\n    "));
        }
        Ok(())
    }
}

/// A text without XML's escapes.
fn plain(text: &str) -> String {
    let text = text.replace("&quot;", "\"").replace("&apos;", "'").replace("&#39;", "'");
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What cargo-nextest writes.
    const REPORT: &str = r#"<testcase name="a" time="0.1">
            <system-out>running 1 test
skipped: no C compiler</system-out>
            <system-err>skipped: /home/../shared/assets/a.onnx is not there
skipped: &quot;onnxruntime&quot;: &quot;no library &amp; no folder&quot;
</system-err>
        </testcase>
        <testcase name="b">
            <system-err>skipped: /home/../shared/assets/b.jpg is not there</system-err>
            <system-err>it was skipped: no</system-err>
        </testcase>"#;

    #[test]
    fn reasons_are_read_from_reports_and_from_output() {
        let skips = Skips::of(REPORT);
        assert_eq!(skips.count(), 4);
        assert!(skips.0.contains_key("/home/../shared/assets/b.jpg is not there"), "{skips:?}");
        assert!(skips.0.contains_key(r#""onnxruntime": "no library & no folder""#), "{skips:?}");
        let output = "---- a stdout ----\nskipped: no C compiler\n\nskipped: no C compiler\ntest a ... ok";
        assert_eq!(Skips::of(output).0, BTreeMap::from([("no C compiler".to_owned(), 2)]));
        assert_eq!(Skips::of("").count(), 0);
    }

    #[test]
    fn what_one_thing_cures_is_told_once() {
        let mut skips = Skips::of(REPORT);
        skips.add(Skips::of("skipped: x.py needs its peer; `cargo xtask peers` installs it"));
        let lines = skips.lines();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[0].starts_with("   2  test data in ../shared/assets"), "{lines:?}");
        assert!(
            lines.iter().any(|line| line == "   1  ONNX Runtime: cargo xtask fetch-onnxruntime"),
            "{lines:?}"
        );
        let many: String = (0..40).map(|n| format!("skipped: reason {n}\n")).collect();
        assert_eq!(Skips::of(&many).lines().last().unwrap(), "  28  for other reasons");
    }

    #[test]
    fn what_is_required_may_not_be_skipped() {
        let skips = Skips::of(REPORT);
        skips.allow(&[]).unwrap();
        skips.allow(&[Want::Chromium, Want::Peers, Want::CargoDeny]).unwrap();
        let error = skips.allow(&[Want::Chromium, Want::Onnxruntime]).unwrap_err().to_string();
        assert!(error.contains("no library & no folder") && !error.contains("a.onnx"), "{error}");
    }

    #[test]
    fn requirements_are_named_as_they_are_written() {
        assert_eq!(Want::parse("").unwrap(), []);
        assert_eq!(Want::parse("chromium, cargo-deny,").unwrap(), [Want::Chromium, Want::CargoDeny]);
        let error = Want::parse("chrome").unwrap_err().to_string();
        assert!(error.contains("`chrome`") && error.contains("onnxruntime"), "{error}");
    }

    #[test]
    fn tests_name_what_they_want() {
        let sources = [
            (Want::Assets, include_str!("../../tests/src/product.rs"), "../shared/assets"),
            (Want::Chromium, include_str!("../../tests/src/browser.rs"), "skipped: Chromium"),
            (Want::Peers, include_str!("../../tests/tests/clients.rs"), "`cargo xtask peers` installs it"),
            (Want::Peers, include_str!("../../tests/tests/openapi.rs"), "`cargo xtask peers` installs it"),
            (Want::Peers, include_str!("../../tests/tests/templates.rs"), "`cargo xtask peers` installs it"),
        ];
        for (want, source, words) in sources {
            assert!(source.contains(words), "{want:?}: {words}");
            assert_eq!(Want::of(words), Some(want));
        }
    }
}
