//! How far long work is, for who watches.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::quantize::{Form, HASHING};

/// Every hundredth is a line too many where nobody watches: every tenth.
const STEPS: f32 = 10.0;

/// Shows how far it is: a bar with the time that is left on a terminal, else a line now and then.
pub struct Watcher {
    bar: Option<ProgressBar>,
    quiet: bool,
    /// What is at work, and how many steps of it were told.
    told: (String, f32),
}

impl Watcher {
    /// Silent for machines.
    pub fn new(json: bool) -> Self {
        Self { bar: None, quiet: json, told: (String::new(), 0.0) }
    }

    /// For forms that are made, each a line of its own, and again while it is hashed.
    pub fn of_forms(&mut self) -> impl FnMut(&Form, f32, &str) -> ControlFlow<()> + '_ {
        |form, fraction, what| {
            let name = format!("{} {}", form.format, form.precision);
            match what {
                HASHING => self.show(&format!("{name} {HASHING}"), fraction, ""),
                _ => self.show(&name, fraction, what),
            }
        }
    }

    /// Shows how far what is called `name` is (0 to 1), and what is done.
    pub fn show(&mut self, name: &str, fraction: f32, what: &str) -> ControlFlow<()> {
        if self.quiet {
            return ControlFlow::Continue(());
        }
        let fraction = fraction.clamp(0.0, 1.0);
        if !std::io::stderr().is_terminal() {
            let step = (fraction * STEPS).floor();
            if self.told.0 != name || step > self.told.1 {
                eprintln!("{name}: {:>3.0} %", step * 100.0 / STEPS);
                self.told = (name.to_owned(), step);
            }
            return ControlFlow::Continue(());
        }
        if self.told.0 != name {
            self.clear();
            name.clone_into(&mut self.told.0);
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new(1000);
            if let Ok(style) =
                ProgressStyle::with_template("{prefix} {bar:30} {percent:>3}%  {eta:>4} left  {msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        bar.set_message(what.to_owned());
        bar.set_position((fraction * 1000.0) as u64);
        ControlFlow::Continue(())
    }

    /// Takes the bar away, for what is printed next.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
