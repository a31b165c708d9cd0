//! How far a form may be from the original.

use serde::Serialize;

use super::measures::Measures;

/// Limits; what has none is measured and not judged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    /// The largest mean divergence, in nats.
    pub kld: Option<f64>,
    /// The largest divergence of 99 of 100 tokens, in nats.
    pub kld_p99: Option<f64>,
    /// How many times larger perplexity may be.
    pub perplexity_ratio: Option<f64>,
    /// The least share of tokens of which both find the same the likeliest.
    pub top1: Option<f64>,
    /// The least share of tokens that both write before their first difference.
    pub generation: Option<f64>,
    /// The least share of the original's experts that are chosen too, of models with experts.
    pub router: Option<f64>,
}

/// What a form that nobody would notice keeps to.
impl Default for Limits {
    fn default() -> Self {
        Self {
            kld: Some(0.1),
            kld_p99: Some(2.0),
            perplexity_ratio: Some(1.1),
            top1: Some(0.85),
            generation: None,
            router: None,
        }
    }
}

/// A limit, and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What is limited, for example `kld`.
    pub what: &'static str,
    /// What was measured.
    pub measured: f64,
    /// The limit.
    pub limit: f64,
    /// Whether less is better.
    #[serde(skip)]
    at_most: bool,
    /// Whether the limit is kept.
    pub passed: bool,
}

impl Limits {
    /// Compares what was measured with every limit.
    pub fn check(&self, measures: &Measures) -> Vec<Check> {
        let router = measures.routing.as_ref().map_or(0.0, |routing| routing.agreement.value);
        let rows = [
            ("kld", self.kld, measures.kld.mean, true),
            ("kld_p99", self.kld_p99, measures.kld.p99, true),
            ("perplexity_ratio", self.perplexity_ratio, measures.perplexity_ratio.value, true),
            ("top1", self.top1, measures.top1.value, false),
            ("generation", self.generation, measures.generation.match_rate, false),
            ("router", self.router.filter(|_| measures.routing.is_some()), router, false),
        ];
        let check = |(what, limit, measured, at_most): (&'static str, Option<f64>, f64, bool)| {
            let limit = limit?;
            // What is no number passes nothing.
            let passed = if at_most { measured <= limit } else { measured >= limit };
            Some(Check { what, measured, limit, at_most, passed })
        };
        rows.into_iter().filter_map(check).collect()
    }
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (relation, bound) = match (self.passed, self.at_most) {
            (true, true) => ("within", "at most"),
            (true, false) => ("within", "at least"),
            (false, true) => ("beyond", "at most"),
            (false, false) => ("beyond", "at least"),
        };
        write!(f, "{} {:.4} is {relation} the limit of {bound} {}", self.what, self.measured, self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::measures::{Distribution, Estimate, Routing};

    #[test]
    fn every_limit_is_compared_and_what_is_no_number_passes_none() {
        let estimate = |value| Estimate { value, error: 0.0 };
        let measures = Measures {
            kld: Distribution { mean: 0.2, p99: 1.0, ..Distribution::default() },
            perplexity_ratio: estimate(f64::NAN),
            top1: estimate(0.85),
            ..Measures::default()
        };
        let limits = Limits { generation: Some(0.5), ..Limits::default() };
        let checks = limits.check(&measures);
        let passed: Vec<_> = checks.iter().map(|c| (c.what, c.passed)).collect();
        assert_eq!(
            passed,
            [
                ("kld", false),
                ("kld_p99", true),
                ("perplexity_ratio", false),
                ("top1", true),
                ("generation", false)
            ]
        );
        assert_eq!(checks[0].to_string(), "kld 0.2000 is beyond the limit of at most 0.1");
        assert_eq!(checks[3].to_string(), "top1 0.8500 is within the limit of at least 0.85");
        // Only where there are experts.
        let limits = Limits { router: Some(0.9), ..Limits::default() };
        assert!(limits.check(&measures).iter().all(|check| check.what != "router"));
        let routing = Routing { agreement: estimate(0.8), ..Routing::default() };
        let of_experts = Measures { routing: Some(routing), ..measures.clone() };
        let check = limits.check(&of_experts).pop().unwrap();
        assert_eq!((check.what, check.passed), ("router", false));
        let none = Limits {
            kld: None,
            kld_p99: None,
            perplexity_ratio: None,
            top1: None,
            generation: None,
            router: None,
        };
        assert!(none.check(&measures).is_empty());
    }
}
