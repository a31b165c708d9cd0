//! Long steps: what is being done, for how long, and the end of the output when it fails.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use console::style;
use indicatif::{ProgressBar, ProgressStyle};

/// How often a step says that it is alive where no line can be rewritten (a log, a pipe).
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How many lines of a failed command are shown.
const TAIL: usize = 60;

/// What becomes of the output of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Only that it runs; all of it goes to the log, the end of it to the screen on failure.
    Progress,
    /// Every line as it comes.
    Lines,
}

/// `3.4 s`, `1 min 20 s`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A headline before a group of steps.
pub fn headline(text: &str) {
    eprintln!("\n{}", style(text).bold().for_stderr());
}

/// A step that took no time worth showing.
pub fn done(label: &str, detail: &str) {
    eprintln!("  {} {label}  {}", style("✓").green().for_stderr(), style(detail).dim().for_stderr());
}

/// A step that was left out, and why.
pub fn skipped(label: &str, reason: &str) {
    eprintln!("  {} {label}  skipped: {reason}", style("-").yellow().for_stderr());
}

/// Something that a person should know before going on.
pub fn warn(text: &str) {
    eprintln!("{} {text}", style("warning:").yellow().bold().for_stderr());
}

/// Runs a command to its end and shows that it runs. The whole output is kept in `log`.
///
/// # Errors
/// When it cannot be started, or ends with another status than 0: the message names the command and holds the end
/// of its output.
pub fn run(label: &str, command: &mut Command, log: &Path, show: Show) -> Result<()> {
    let begun = Instant::now();
    let mut log_file = create_log(log)?;
    let line = command_line(command);
    writeln!(log_file, "$ {line}")?;

    let (reader, writer) = std::io::pipe()?;
    command.stdin(std::process::Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("`{line}` could not be started"))?;
    // The command holds the writing end, which would keep the pipe open after the child has ended.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());

    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(std::io::Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });

    let display = Display::new(label, show);
    let mut tail = VecDeque::with_capacity(TAIL);
    let mut next_beat = begun + HEARTBEAT;
    loop {
        match lines.recv_timeout(next_beat.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                display.line(&line);
                let plain = console::strip_ansi_codes(&line).trim_end().to_owned();
                writeln!(log_file, "{plain}")?;
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(plain);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if Instant::now() >= next_beat {
            next_beat += HEARTBEAT;
            display.heartbeat(begun.elapsed(), tail.back().map_or("", String::as_str));
        }
    }
    let status = child.wait()?;
    display.finish(status.success(), begun.elapsed());
    if !status.success() {
        let shown = if show == Show::Lines { String::new() } else { indented(&tail) };
        bail!("`{line}` ended with {status}\n{shown}    the whole output: {}", log.display());
    }
    Ok(())
}

fn create_log(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    File::create(path).with_context(|| format!("{} cannot be written", path.display()))
}

fn indented(lines: &VecDeque<String>) -> String {
    lines.iter().map(|line| format!("    {line}\n")).collect()
}

/// The command as a person would type it.
fn command_line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| {
            let word = word.to_string_lossy();
            match word.rsplit_once('/') {
                Some((_, "cargo")) => "cargo".to_owned(),
                _ if word.contains(char::is_whitespace) => format!("'{word}'"),
                _ => word.into_owned(),
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// One step on the screen.
struct Display<'a> {
    label: &'a str,
    show: Show,
    bar: Option<ProgressBar>,
}

impl<'a> Display<'a> {
    fn new(label: &'a str, show: Show) -> Self {
        let bar = (show == Show::Progress && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) =
                ProgressStyle::with_template("  {spinner} {prefix}  {elapsed}  {wide_msg:.dim}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(label.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            eprintln!("  … {label}");
        }
        Self { label, show, bar }
    }

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(console::strip_ansi_codes(line).trim().to_owned()),
            None if self.show == Show::Lines => eprintln!("{line}"),
            None => {}
        }
    }

    fn heartbeat(&self, elapsed: Duration, last: &str) {
        if self.bar.is_none() && self.show == Show::Progress {
            eprintln!("    {}: {}", duration(elapsed), last.trim());
        }
    }

    fn finish(&self, good: bool, elapsed: Duration) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let mark = if good { style("✓").green() } else { style("✗").red() };
        eprintln!("  {} {}  {}", mark.for_stderr(), self.label, style(duration(elapsed)).dim().for_stderr());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(duration(Duration::from_millis(3_440)), "3.4 s");
        assert_eq!(duration(Duration::from_secs(80)), "1 min 20 s");
        assert_eq!(duration(Duration::from_secs(3_900)), "1 h 05 min");
    }

    #[test]
    fn a_failure_names_the_command_and_shows_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo said; echo failed >&2; exit 3"]);
        let error = run("a step", &mut command, &log, Show::Progress).unwrap_err().to_string();
        assert!(error.contains("sh -c"), "{error}");
        assert!(error.contains("    said\n") && error.contains("    failed\n"), "{error}");
        assert!(std::fs::read_to_string(&log).unwrap().contains("said"));
    }

    #[test]
    fn a_failure_shows_the_end_and_the_log_has_everything() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "seq 100; exit 1"]);
        let error = run("a step", &mut command, &log, Show::Progress).unwrap_err().to_string();
        assert!(error.contains("    41\n") && !error.contains("    40\n"), "{error}");
        assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 1 + 100);
    }
}
