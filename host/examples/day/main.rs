//! A simulated day of mixed traffic: ten models, memory for about three, and what becomes of each request under the host's
//! own router and fleet, and under a baseline. No clock: the same on every machine.
//!
//! `cargo xtask bench --only day`; `docs/src/day.md` says what is assumed, and has the tables.

mod chance;
mod engine;
mod generate;
mod keeper;
mod lru;
mod machine;
mod outcome;
mod policy;
mod report;
mod simulate;
#[cfg(test)]
mod tests;
mod trace;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let printed = match words[..] {
        [] => report::tables(),
        ["trace"] => Ok(generate::file(&generate::day(generate::SEED, generate::CONVERSATIONS))),
        _ => Err("without words it prints the tables of docs/src/day.md; with `trace`, its trace".to_owned()),
    };
    match printed {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
