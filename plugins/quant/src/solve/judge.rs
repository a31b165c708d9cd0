//! Which of two files is kept: what was solved, only if it measures better than the preset.

use serde::Serialize;

use crate::evaluate::Estimate;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kept {
    Solve,
    Preset,
}

/// What was measured on text that nothing was chosen by, and what follows from it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Verdict {
    pub kept: Kept,
    /// For people.
    pub why: String,
    /// The divergence of what was solved.
    pub measured_kld: Estimate,
    /// That of the preset, if there is one as small.
    pub preset_kld: Option<Estimate>,
}

/// Judges by the divergence of what was solved, and by that of the preset of the same size, if there is one.
pub(crate) fn judge(measured_kld: Estimate, preset_kld: Option<Estimate>) -> Verdict {
    let (kept, why) = match preset_kld {
        None => (Kept::Solve, "no preset is as small".to_owned()),
        // Not a number is never better.
        Some(preset) if measured_kld.value < preset.value => {
            let lower = 100.0 * (1.0 - measured_kld.value / preset.value);
            (Kept::Solve, format!("its KL divergence is {lower:.1} % below the preset's"))
        }
        Some(_) => (Kept::Preset, "what was solved is not closer to the original than the preset".to_owned()),
    };
    Verdict { kept, why, measured_kld, preset_kld }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(measured: f64, preset: Option<f64>) -> Verdict {
        let of = |value| Estimate { value, error: 0.0 };
        judge(of(measured), preset.map(of))
    }

    #[test]
    fn what_was_solved_is_kept_only_if_it_is_better() {
        let better = judged(0.09, Some(0.1));
        assert_eq!((better.kept, better.preset_kld.map(|k| k.value)), (Kept::Solve, Some(0.1)));
        assert!(better.why.contains("10.0 % below"), "{}", better.why);
        for worse in [0.1, 0.11, f64::NAN, f64::INFINITY] {
            let verdict = judged(worse, Some(0.1));
            assert_eq!(verdict.kept, Kept::Preset);
            assert!(verdict.why.contains("not closer"), "{}", verdict.why);
        }
        assert_eq!(judged(9.0, None).kept, Kept::Solve);
    }
}
