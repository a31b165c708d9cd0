//! `pajamas validate`: how close an artifact's forms are to the model that they were made of.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;

use super::session::{LoadingBar, cancel_on_interrupt};
use super::{Global, output, source};
use crate::error::{Error, Result};
use crate::plugins::Plugins;
use crate::validate::{Job, Limits, Report, Validated};

/// The largest file of prompts.
const MAX_PROMPTS_BYTES: u64 = 16 << 20;
/// What takes a limit away.
const NONE: &str = "none";

#[derive(Debug, Args)]
pub struct Validate {
    /// An artifact, a GGUF file, a folder of MLX, or the id of a repository, `org/name[:file.gguf][@revision]`
    model: PathBuf,
    /// The model that it was made of: a Hugging Face folder, a GGUF file, an artifact, or the id of a repository
    #[arg(long, value_name = "MODEL")]
    against: PathBuf,
    /// The text that both read, in UTF-8; something that neither was trained or calibrated on
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Which forms of an artifact, separated by commas: `gguf:Q4_K_M`, `mlx`, `all` [default: all]
    #[arg(short, long, value_name = "FORM,…", value_delimiter = ',')]
    format: Vec<String>,
    /// Texts that both continue, one a line [default: beginnings of windows of the text]
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Tokens to continue each by
    #[arg(short = 'n', long, value_name = "N", default_value_t = 32)]
    tokens: u64,
    /// The most windows of the text to read [default: all]
    #[arg(long, value_name = "N")]
    chunks: Option<u64>,
    /// Tokens of a window [default: 512, or what the models were trained with if that is less]
    #[arg(long, value_name = "N")]
    window: Option<u32>,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// The largest mean divergence in nats, or `none`
    #[arg(long, value_name = "LIMIT", default_value = "0.1", value_parser = limit)]
    max_kld: Limit,
    /// The largest divergence of 99 of 100 tokens in nats, or `none`
    #[arg(long, value_name = "LIMIT", default_value = "2", value_parser = limit)]
    max_kld_p99: Limit,
    /// How many times larger perplexity may be, or `none`
    #[arg(long, value_name = "LIMIT", default_value = "1.1", value_parser = limit)]
    max_perplexity_ratio: Limit,
    /// The least share of tokens of which both find the same the likeliest, or `none`
    #[arg(long, value_name = "LIMIT", default_value = "0.85", value_parser = limit)]
    min_agreement: Limit,
    /// The least share of tokens that both write before their first difference, or `none`
    #[arg(long, value_name = "LIMIT", default_value = "none", value_parser = limit)]
    min_generation: Limit,
    /// The least share of the original's experts that are chosen too, of models with experts, or `none`
    #[arg(long, value_name = "LIMIT", default_value = "none", value_parser = limit)]
    min_router_agreement: Limit,
    /// Write a report in Markdown, with charts in SVG beside it
    #[arg(long, value_name = "FILE.md")]
    report: Option<PathBuf>,
}

/// A limit, or none.
#[derive(Debug, Clone, Copy)]
struct Limit(Option<f64>);

fn limit(text: &str) -> Result<Limit, String> {
    if text == NONE {
        return Ok(Limit(None));
    }
    let number = text.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
    number.map(|n| Limit(Some(n))).ok_or_else(|| format!("a number from 0, or `{NONE}`"))
}

impl Validate {
    pub fn run(self, global: &Global) -> Result<()> {
        let plugins = Plugins::load(&global.config()?.plugins);
        let report_to = self.report.clone();
        let mut job = self.job()?;
        let cancel = cancel_on_interrupt();
        job.original = source::find(global, &job.original, &cancel)?;
        job.candidate = source::find(global, &job.candidate, &cancel)?;
        let mut bar = LoadingBar::default();
        let report = job.run(
            &plugins,
            &mut |form, fraction, what| {
                bar.show(fraction, &format!("{form}  {what}"));
                ControlFlow::Continue(())
            },
            &cancel,
        );
        bar.clear();
        let report = report?;
        match global.json {
            true => output::json_line(&report)?,
            false => show(&report)?,
        }
        if let Some(path) = report_to {
            report.write(&path)?;
        }
        report.failure().map_or(Ok(()), Err)
    }

    fn job(self) -> Result<Job> {
        Ok(Job {
            prompts: self.prompts.as_deref().map(prompts).transpose()?.unwrap_or_default(),
            candidate: self.model,
            original: self.against,
            text: self.text,
            forms: self.format,
            tokens: self.tokens,
            window: self.window,
            chunks: self.chunks,
            threads: self.threads,
            limits: Limits {
                kld: self.max_kld.0,
                kld_p99: self.max_kld_p99.0,
                perplexity_ratio: self.max_perplexity_ratio.0,
                top1: self.min_agreement.0,
                generation: self.min_generation.0,
                router: self.min_router_agreement.0,
            },
        })
    }
}

/// The lines of a file that are not empty.
fn prompts(path: &Path) -> Result<Vec<String>> {
    let about = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?;
    if about.len() > MAX_PROMPTS_BYTES {
        let message =
            format!("{}: {} bytes of prompts, more than {MAX_PROMPTS_BYTES}", path.display(), about.len());
        return Err(Error::new("invalid-option", message));
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
    let lines: Vec<String> = text.lines().filter(|l| !l.trim().is_empty()).map(str::to_owned).collect();
    match lines.is_empty() {
        true => Err(Error::new("invalid-option", format!("{}: there is no prompt in it", path.display()))),
        false => Ok(lines),
    }
}

fn show(report: &Report) -> Result<()> {
    const HEAD: [&str; 12] = [
        "form",
        "MB",
        "bits",
        "perplexity",
        "ratio",
        "KLD",
        "99 %",
        "same first",
        "same text",
        "same experts",
        "their use",
        "",
    ];
    // Most models have none.
    const OF_EXPERTS: [usize; 2] = [9, 10];
    let experts = report.forms.iter().any(|form| form.measures.routing.is_some());
    let shown = |at: &usize| experts || !OF_EXPERTS.contains(at);
    let rows: Vec<[String; 12]> =
        [HEAD.map(str::to_owned)].into_iter().chain(report.forms.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().filter(|(at, _)| shown(at));
        let cells = cells.map(|(at, (cell, width))| match at {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        output::line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    let mut notes: Vec<&String> = report.forms.iter().flat_map(|form| &form.measures.notes).collect();
    notes.dedup();
    notes.into_iter().try_for_each(|note| output::line(&format!("  {note}")))?;
    match report.skipped.is_empty() {
        true => Ok(()),
        false => output::line(&format!("  not measured: {}", report.skipped.join(", "))),
    }
}

fn row(form: &Validated) -> [String; 12] {
    let m = &form.measures;
    let experts = m.routing.as_ref();
    [
        format!("{} {}", form.format, form.precision),
        format!("{:.1}", form.bytes as f64 / 1e6),
        format!("{:.2}", m.candidate.bits_per_weight),
        format!("{:.4} ± {:.4}", m.perplexity.value, m.perplexity.error),
        format!("{:.4}", m.perplexity_ratio.value),
        format!("{:.5} ± {:.5}", m.kld.mean, m.kld.error),
        format!("{:.4}", m.kld.p99),
        format!("{:.2} %", m.top1.value * 100.0),
        format!("{:.1} %", m.generation.match_rate * 100.0),
        experts.map(|e| format!("{:.2} %", e.agreement.value * 100.0)).unwrap_or_default(),
        experts.map(|e| format!("r {:.4}", e.usage_correlation)).unwrap_or_default(),
        if form.passed { "passed".to_owned() } else { "failed".to_owned() },
    ]
}
