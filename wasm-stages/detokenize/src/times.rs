//! Whisper's tokens of time: a text stands between two of them.

/// Tokens with their times.
#[derive(Debug, Clone, PartialEq)]
pub struct Stretch {
    /// Where it begins, in seconds since the window began.
    pub start: f32,
    /// Where it ends; where it begins, when no token says it.
    pub end: f32,
    /// What was said.
    pub tokens: Vec<u32>,
}

/// The stretches between tokens of time. What stands before the first has no times, and is left out.
pub fn stretches(tokens: &[(u32, Option<f32>)]) -> Vec<Stretch> {
    let mut found = Vec::new();
    let mut open: Option<Stretch> = None;
    for (id, time) in tokens {
        match (time, open.take()) {
            (Some(time), Some(stretch)) if !stretch.tokens.is_empty() => {
                found.push(Stretch { end: *time, ..stretch });
            }
            (Some(time), _) => open = Some(Stretch { start: *time, end: *time, tokens: Vec::new() }),
            (None, Some(mut stretch)) => {
                stretch.tokens.push(*id);
                open = Some(stretch);
            }
            (None, None) => {}
        }
    }
    found.extend(open.filter(|stretch| !stretch.tokens.is_empty()));
    found
}

/// The seconds in `<|1.20|>`.
pub fn seconds(token: &str) -> Option<f32> {
    let number = token.strip_prefix("<|")?.strip_suffix("|>")?;
    let (whole, part) = number.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (digits(whole) && digits(part)).then(|| number.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_between_the_marks_is_a_time() {
        assert_eq!(seconds("<|1.20|>"), Some(1.2));
        assert_eq!(seconds("<|30.00|>"), Some(30.0));
        for other in ["<|en|>", "<|1|>", "<|.5|>", "<|-1.0|>", "1.20", "<|1.2e3|>"] {
            assert_eq!(seconds(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_said_stands_between_two_times() {
        let t = |seconds: f32| (0, Some(seconds));
        let w = |id: u32| (id, None);
        let of = |start, end, tokens: &[u32]| Stretch { start, end, tokens: tokens.to_vec() };
        let tokens = [w(9), t(0.0), w(1), w(2), t(1.5), t(1.5), w(3), t(2.0)];
        assert_eq!(stretches(&tokens), [of(0.0, 1.5, &[1, 2]), of(1.5, 2.0, &[3])]);
        assert_eq!(stretches(&[t(4.0), w(1)]), [of(4.0, 4.0, &[1])], "cut off by the window's end");
        assert_eq!(stretches(&[t(1.0), t(2.0), w(1), t(3.0)]), [of(2.0, 3.0, &[1])]);
        assert_eq!(stretches(&[w(1), w(2)]), []);
        assert_eq!(stretches(&[t(1.0)]), []);
    }
}
