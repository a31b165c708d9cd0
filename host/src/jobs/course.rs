//! How far a job of several forms is, and how long it may still take.

use super::book::Progress;
use crate::quantize::{Form, HASHING};

/// The part of a form's work that reading back what was written takes: little, as a rule.
const HASHES: f64 = 0.05;

/// The way of a job from nothing to all of its forms.
#[derive(Debug, Clone)]
pub struct Course {
    forms: Vec<Form>,
    fraction: f64,
    form: Option<Form>,
    what: String,
    /// When it was first told how far it is, and how far that was: forms that were there already are no measure.
    first: Option<(u64, f64)>,
    /// When it was told the latest, and the milliseconds that were left then.
    left: Option<(u64, u64)>,
}

impl Course {
    /// The beginning of a job that makes these forms.
    pub fn new(forms: Vec<Form>) -> Self {
        Self { forms, fraction: 0.0, form: None, what: String::new(), first: None, left: None }
    }

    /// `form` is at `fraction` (0 to 1) of `what`. Says whether that is a whole hundredth of the job more than before, or
    /// another form.
    pub fn tell(&mut self, form: &Form, fraction: f32, what: &str, now: u64) -> bool {
        let whole = self.whole(form, fraction, what).max(self.fraction);
        let hundredths = |fraction: f64| (fraction * 100.0).floor();
        let news = hundredths(whole) > hundredths(self.fraction) || self.form.as_ref() != Some(form);
        self.fraction = whole;
        if self.form.as_ref() != Some(form) {
            self.form = Some(form.clone());
        }
        what.clone_into(&mut self.what);
        let (since, from) = *self.first.get_or_insert((now, whole));
        if whole > from {
            let took = now.saturating_sub(since) as f64;
            self.left = Some((now, (took * (1.0 - whole) / (whole - from)).round() as u64));
        }
        news
    }

    /// All is done.
    pub fn finish(&mut self) {
        self.fraction = 1.0;
        self.what.clear();
    }

    /// How far it is; how long it may take is another question.
    pub fn progress(&self) -> Progress {
        // Four digits: what is told should not look more exact than it is.
        let fraction = (self.fraction * 1e4).round() / 1e4;
        Progress { fraction, form: self.form.clone(), what: self.what.clone(), eta_s: None }
    }

    /// Milliseconds until its end, if it goes on as it did; `None` as long as nothing is known.
    pub fn left(&self, now: u64) -> Option<u64> {
        let (told, left) = self.left?;
        Some(left.saturating_sub(now.saturating_sub(told)))
    }

    /// All forms count the same: how large each will be only its quantizer knows.
    fn whole(&self, form: &Form, fraction: f32, what: &str) -> f64 {
        let same = |other: &Form| {
            other.format.eq_ignore_ascii_case(&form.format)
                && other.precision.eq_ignore_ascii_case(&form.precision)
        };
        let before = self.forms.iter().position(same).unwrap_or(0) as f64;
        // Not a number is nothing.
        let fraction = f64::from(fraction.max(0.0)).clamp(0.0, 1.0);
        let part = match what {
            HASHING => (1.0 - HASHES) + HASHES * fraction,
            _ => (1.0 - HASHES) * fraction,
        };
        (before + part) / self.forms.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(precision: &str) -> Form {
        Form { format: "gguf".into(), precision: precision.into() }
    }

    #[test]
    fn a_job_is_as_far_as_its_forms_and_never_goes_back() {
        let mut course = Course::new(vec![form("q8_0"), form("q4_0")]);
        let mut at = |precision, fraction, what| {
            course.tell(&form(precision), fraction, what, 0);
            course.progress().fraction
        };
        assert_eq!(at("Q8_0", 0.5, "blk.0"), 0.2375);
        assert_eq!(at("Q8_0", 0.2, "again"), 0.2375, "a second pass begins anew");
        assert_eq!(at("Q8_0", 1.0, "blk.9"), 0.475);
        assert_eq!(at("Q8_0", 1.0, HASHING), 0.5);
        assert_eq!(at("Q4_0", 0.0, "blk.0"), 0.5);
        assert_eq!(at("Q4_0", f32::NAN, "blk.0"), 0.5);
        assert_eq!(at("Q4_0", 7.0, HASHING), 1.0);
    }

    #[test]
    fn a_hundredth_more_and_another_form_are_worth_telling() {
        let mut course = Course::new(vec![form("a"), form("b")]);
        assert!(course.tell(&form("A"), 0.0, "", 0), "it began");
        assert!(!course.tell(&form("A"), 0.001, "other words", 1));
        assert_eq!(course.progress().what, "other words", "they are told with what comes next");
        assert!(course.tell(&form("A"), 0.1, "", 2));
        assert!(!course.tell(&form("A"), 0.1, "", 3));
        assert!(course.tell(&form("B"), 0.0, "", 4));
    }

    #[test]
    fn what_is_left_is_what_the_rest_takes_at_the_same_pace() {
        let mut course = Course::new(vec![form("a"), form("b")]);
        assert_eq!(course.left(0), None);
        // The first form was there already: nothing was told of it.
        course.tell(&form("B"), 0.0, "", 1000);
        assert_eq!(course.left(1000), None, "nothing was measured yet");
        course.tell(&form("B"), 0.5, "", 2900);
        // 0.2375 of the job in 1.9 s, and 0.2625 are left.
        assert_eq!(course.left(2900), Some(2100));
        assert_eq!(course.left(4000), Some(1000), "it passes while nothing is told");
        assert_eq!(course.left(9000), Some(0));
        course.tell(&form("B"), 1.0, HASHING, 5000);
        assert_eq!(course.left(5000), Some(0));
    }
}
