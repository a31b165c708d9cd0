//! Reading: from a text to tokens and back. The file is read for each run, in the stage as in the engine, so its time counts.

use std::fs;
use std::time::Instant;

use detokenize::Detokenize;
use pajamas_stage::{Files, Segment, Stage, Values, testing};
use serde_json::json;
use tokenize::Tokenize;

use crate::{Failure, RUNS, told};

/// The lines of the text that are read.
const LINES: usize = 400;

/// Prints the times of making the stages and of running them.
pub fn measure(tokenizer: &str, text: &str) -> Result<(), Failure> {
    let file = fs::read(tokenizer)?;
    let files = || -> Files { [("tokenizer.json", file.as_slice())].into_iter().collect() };
    let text = fs::read_to_string(text)?;
    let segment = |line: &str| Segment { start: 0.0, end: 0.0, text: line.to_owned() };
    let lines: Vec<Segment> = text.lines().take(LINES).map(segment).collect();
    let (reading, tokenize) = best(|| testing::create::<Tokenize>(&json!({}), files()).map_err(told))?;
    let (encoding, _) = best(|| tokenize.run(Values::new().with("segments", lines.clone())).map_err(told))?;
    let joined: String = text.lines().take(LINES).collect();
    let mut whole = tokenize.run(Values::new().with("text", joined)).map_err(told)?;
    let tokens = whole.tokens("tokens").map_err(told)?;
    let (reading_back, detokenize) =
        best(|| testing::create::<Detokenize>(&json!({}), files()).map_err(told))?;
    let (decoding, _) = best(|| detokenize.run(Values::new().with("tokens", tokens.clone())).map_err(told))?;
    let step = |name: &str, ms: f64| json!({ "step": name, "ms": ms });
    let steps = [
        step("tokenize: reading the file", reading),
        step("tokenize", encoding),
        step("detokenize: reading the file", reading_back),
        step("detokenize", decoding),
    ];
    println!("{}", json!({ "steps": steps }));
    Ok(())
}

/// The shortest of many times in milliseconds, and what came out last.
fn best<T>(mut of: impl FnMut() -> Result<T, String>) -> Result<(f64, T), Failure> {
    let mut best = f64::INFINITY;
    let mut once = || {
        let started = Instant::now();
        let made = of()?;
        best = best.min(started.elapsed().as_secs_f64() * 1e3);
        Ok::<T, String>(made)
    };
    let mut last = once()?;
    for _ in 1..RUNS {
        last = once()?;
    }
    Ok((best, last))
}
