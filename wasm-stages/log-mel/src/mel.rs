//! Mel filters after Slaney's Auditory Toolbox (1998), as librosa and Whisper have them: linear below 1 kHz, logarithmic
//! above, each triangle of the same area.

/// Bins of the spectrum, from 0 to half the sample rate.
pub const BINS: usize = 201;
/// Half the sample rate of 16 kHz.
const NYQUIST: f64 = 8000.0;

/// One triangle: where it begins, and its weights.
#[derive(Debug)]
pub struct Filter {
    /// The first bin with a weight.
    pub first: usize,
    /// The weights of it and the bins after it.
    pub weights: Vec<f32>,
}

/// The triangles of `bands` bands from 0 to 8 kHz.
pub fn filters(bands: usize) -> Vec<Filter> {
    let top = to_mel(NYQUIST);
    let corners: Vec<f64> = (0..bands + 2).map(|i| to_hz(top * i as f64 / (bands + 1) as f64)).collect();
    let hz = |bin: usize| NYQUIST * bin as f64 / (BINS - 1) as f64;
    let filter = |corner: &[f64]| {
        let (low, middle, high) = (corner[0], corner[1], corner[2]);
        let weight = |bin| {
            let (rising, falling) = ((hz(bin) - low) / (middle - low), (high - hz(bin)) / (high - middle));
            rising.min(falling).max(0.0) * 2.0 / (high - low)
        };
        let first = (0..BINS).find(|bin| weight(*bin) > 0.0).unwrap_or(0);
        let weights =
            (first..BINS).map(weight).take_while(|weight| *weight > 0.0).map(|w| w as f32).collect();
        Filter { first, weights }
    };
    corners.windows(3).map(filter).collect()
}

/// Where the scale turns from linear to logarithmic, in Hz and in mel, and how many mel a factor of e is above.
const TURN: f64 = 1000.0;
const LINEAR: f64 = 3.0 / 200.0;

fn logarithmic() -> f64 {
    27.0 / 6.4f64.ln()
}

fn to_mel(hz: f64) -> f64 {
    if hz < TURN { hz * LINEAR } else { TURN * LINEAR + (hz / TURN).ln() * logarithmic() }
}

fn to_hz(mel: f64) -> f64 {
    let turn = TURN * LINEAR;
    if mel < turn { mel / LINEAR } else { TURN * ((mel - turn) / logarithmic()).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_goes_there_and_back() {
        for hz in [0.0, 440.0, 999.0, 1000.0, 4321.0, 8000.0] {
            assert!((to_hz(to_mel(hz)) - hz).abs() < 1e-9);
        }
        assert!((to_mel(1000.0) - 15.0).abs() < 1e-12);
        assert!((to_mel(6400.0) - 42.0).abs() < 1e-12);
    }

    #[test]
    fn every_filter_hears_something_and_none_hears_beyond_the_spectrum() {
        for bands in [80, 128] {
            let filters = filters(bands);
            assert_eq!(filters.len(), bands);
            assert!(filters.iter().all(|f| !f.weights.is_empty() && f.first + f.weights.len() <= BINS));
        }
    }

    /// Values of librosa.filters.mel(sr=16000, n_fft=400, n_mels=80).
    #[test]
    fn weights_are_those_of_librosa() {
        let filters = filters(80);
        assert_eq!((filters[0].first, filters[0].weights.len()), (1, 1));
        assert!((filters[0].weights[0] - 0.024_862_593).abs() < 1e-8);
        let last = &filters[79];
        assert_eq!(last.first + last.weights.len(), 200);
    }
}
