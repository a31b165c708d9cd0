//! How long the router's classifier takes to say what a prompt wants: `cargo run --release --example intent`.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use pajamas::router::Classifier;

const ROUNDS: usize = 5000;

fn main() -> Result<(), Box<dyn Error>> {
    let classifier = Classifier::built_in()?;
    let words = "What does `fn main()` do in Rust, and why is 2 + 2 = 4? Übersetze das bitte ins Englische. ";
    for length in [20, 200, 2048, 16 << 10] {
        let text: String = words.chars().cycle().take(length).collect();
        let mut took: Vec<Duration> = (0..ROUNDS)
            .map(|_| {
                let begun = Instant::now();
                black_box(classifier.classify(black_box(&text)));
                begun.elapsed()
            })
            .collect();
        took.sort_unstable();
        let at = |percent: usize| took[(ROUNDS - 1) * percent / 100].as_nanos() as f64 / 1e3;
        println!("{length:>6} characters: p50 {:.0} µs, p99 {:.0} µs", at(50), at(99));
    }
    Ok(())
}
