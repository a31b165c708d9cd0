//! The filter: a sinc under a Kaiser window (J. F. Kaiser, 1974; Oppenheim and Schafer, Discrete-Time Signal Processing,
//! 7.5.3), laid out as one row of coefficients for each position between two samples.

/// Zero crossings of the sinc on each side.
const CROSSINGS: f64 = 64.0;
/// The window's shape: 0.1102 (A - 8.7) for an attenuation A of 100 dB.
const BETA: f64 = 10.06;
/// The middle of the transition, as a share of the band: with these crossings the transition is a tenth of the band wide, and
/// ends where the band does.
const CUTOFF: f64 = 0.95;
/// How finely positions between two samples are told apart when the rates have no simple ratio; between them, the filter is
/// interpolated. The error of that is below -110 dB.
const PHASES: u32 = 1024;

/// Rows of coefficients.
#[derive(Debug)]
pub struct Filter {
    /// Coefficients of each row, a multiple of four.
    pub taps: usize,
    rows: Vec<f32>,
}

impl Filter {
    /// The filter from one rate to another, with `phases` rows and one more, which is the first a sample later.
    pub fn new(from: u32, to: u32, phases: u32) -> Self {
        // In samples of the input; when the output is slower, its band is the narrower one.
        let band = CUTOFF * f64::from(to.min(from)) / f64::from(from);
        let half = CROSSINGS * f64::from(from) / f64::from(to.min(from));
        let taps = (2 * half.ceil() as usize).next_multiple_of(4);
        let scale = bessel(BETA);
        let mut rows = Vec::with_capacity(taps * (phases as usize + 1));
        let mut row = vec![0.0; taps];
        for phase in 0..=phases {
            let offset = f64::from(phase) / f64::from(phases);
            for (tap, value) in row.iter_mut().enumerate() {
                // The output lies `offset` behind the sample that tap `taps / 2 - 1` is applied to.
                let x = tap as f64 - (taps / 2 - 1) as f64 - offset;
                let window = 1.0 - (x / half).powi(2);
                *value =
                    if window > 0.0 { sinc(x * band) * bessel(BETA * window.sqrt()) / scale } else { 0.0 };
            }
            // Each row lets a constant through as it is.
            let sum: f64 = row.iter().sum();
            rows.extend(row.iter().map(|value| (value / sum) as f32));
        }
        Self { taps, rows }
    }

    /// The row for a position of `phase` parts behind a sample.
    pub fn row(&self, phase: usize) -> &[f32] {
        &self.rows[phase * self.taps..][..self.taps]
    }
}

/// How many rows are needed, for rates without a common divisor: one for each position that occurs, or as many as keep
/// the interpolation between them exact. A filter that is stretched, because the output is slower, needs fewer.
pub fn phases(from: u32, to: u32) -> u32 {
    let fine = if from > to { (PHASES / (from / to)).max(32) } else { PHASES };
    to.min(fine)
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { x.sin() / x }
}

/// The modified Bessel function of the first kind and order zero, by its power series.
fn bessel(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let (mut sum, mut term, mut n) = (1.0, 1.0, 1.0);
    while term > sum * 1e-12 {
        term *= quarter / (n * n);
        sum += term;
        n += 1.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bessel_function_has_its_known_values() {
        assert!((bessel(0.0) - 1.0).abs() < 1e-12);
        assert!((bessel(1.0) - 1.266_065_877_752_008).abs() < 1e-12);
        assert!((bessel(10.0) / 2_815.716_628_466_254 - 1.0).abs() < 1e-11);
    }

    #[test]
    fn every_row_keeps_a_constant_and_the_last_is_the_first_a_sample_later() {
        let filter = Filter::new(441, 160, 160);
        for phase in 0..=160 {
            let sum: f32 = filter.row(phase).iter().sum();
            assert!((sum - 1.0).abs() < 1e-5, "{phase}: {sum}");
        }
        for (later, first) in filter.row(160)[1..].iter().zip(filter.row(0)) {
            assert!((later - first).abs() < 1e-6);
        }
    }

    #[test]
    fn rows_are_few_whatever_the_rates() {
        for (from, to) in [(441, 160), (383_999, 1000), (1000, 383_999), (44_099, 16_000)] {
            let filter = Filter::new(from, to, phases(from, to));
            assert!(filter.rows.len() <= 2_000_000, "{from} to {to}: {}", filter.rows.len());
        }
    }
}
