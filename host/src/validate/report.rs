//! The report as Markdown.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::{Estimate, Limits, Report, Validated, chart};
use crate::artifact::write_whole;
use crate::error::{Error, Result};

/// Writes the report and its charts.
pub(super) fn write(report: &Report, path: &Path) -> Result<()> {
    let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else {
        let message = format!("{}: a report needs a name", path.display());
        return Err(Error::new("invalid-option", message).help("write --report REPORT.md"));
    };
    let mut charts = Vec::new();
    let points: Vec<(String, f64, f64)> = report
        .forms
        .iter()
        .map(|form| (label(form), form.bytes as f64 / 1e6, form.measures.kld.mean))
        .collect();
    charts.push((format!("{stem}-size.svg"), chart::size_and_divergence(&points)));
    for form in &report.forms {
        let title = format!("Bits of each tensor: {}", label(form));
        let name = format!("{stem}-{}.svg", plain(&label(form)));
        charts.push((name, chart::bits(&title, &form.measures.tensors)));
    }
    let names: Vec<&str> = charts.iter().map(|(name, _)| name.as_str()).collect();
    let text = markdown(report, &names);
    // The report comes last: what it names is there.
    for (name, svg) in &charts {
        write_whole(&path.with_file_name(name), |file| file.write_all(svg.as_bytes()))?;
    }
    write_whole(path, |file| file.write_all(text.as_bytes()))
}

/// The report's text; the first chart is that of sizes, the others are those of the forms in their order.
fn markdown(report: &Report, charts: &[&str]) -> String {
    let mut text = format!("# {} against {}\n\n", cell(&report.model), cell(&report.original));
    let first = report.forms.first().map(|form| &form.measures);
    let (window, chunks) = first.map_or((0, 0), |m| (m.window, m.chunks));
    let _ = writeln!(
        text,
        "Measured {} on `{}` ({} bytes, SHA-256 `{}`): {chunks} windows of {window} tokens, of which the second half is \
         scored. **{}**\n",
        report.validated_at,
        cell(&report.text.path),
        report.text.bytes,
        report.text.sha256,
        if report.passed { "Every form keeps to the limits." } else { "Not every form keeps to the limits." }
    );
    text.push_str(
        "| form | MB | bits a weight | perplexity | ratio | KLD mean | median | 99 % | max | same first choice | RMS Δp | \
         same text | |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for form in &report.forms {
        let m = &form.measures;
        let _ = writeln!(
            text,
            "| {} | {:.1} | {:.2} | {} | {} | {} | {:.5} | {:.4} | {:.4} | {} | {} | {} | {} |",
            cell(&label(form)),
            form.bytes as f64 / 1e6,
            m.candidate.bits_per_weight,
            estimate(m.perplexity, 4),
            estimate(m.perplexity_ratio, 4),
            estimate(Estimate { value: m.kld.mean, error: m.kld.error }, 5),
            m.kld.median,
            m.kld.p99,
            m.kld.max,
            percent(m.top1),
            percent(m.probability_rms),
            written(form),
            if form.passed { "passed" } else { "**failed**" },
        );
    }
    text.push_str(&experts(report));
    if let Some(m) = first {
        let _ = writeln!(
            text,
            "\nThe original: perplexity {}, {:.1} MB of tensors, {:.2} bits a weight.",
            estimate(m.original_perplexity, 4),
            m.original.tensor_bytes as f64 / 1e6,
            m.original.bits_per_weight
        );
    }
    let _ = writeln!(text, "\nLimits: {}.", limits(&report.limits));
    let failed = report.forms.iter().flat_map(|form| form.checks.iter().map(move |check| (form, check)));
    for (form, check) in failed.filter(|(_, check)| !check.passed) {
        let _ = writeln!(text, "- {}: {check}", cell(&label(form)));
    }
    if !report.skipped.is_empty() {
        let _ = writeln!(text, "\nNot measured: {}.", cell(&report.skipped.join(", ")));
    }
    let mut charts = charts.iter();
    if let Some(name) = charts.next() {
        let _ = writeln!(text, "\n## Size and divergence\n\n![Size and divergence](<{name}>)");
    }
    for (form, name) in report.forms.iter().zip(charts) {
        let _ = writeln!(text, "\n## {}\n\n![Bits of each tensor](<{name}>)", cell(&label(form)));
        for note in &form.measures.notes {
            let _ = writeln!(text, "\n- {}", cell(note));
        }
    }
    text
}

/// Of models with experts, which of them both choose.
fn experts(report: &Report) -> String {
    let mut rows = String::new();
    for form in &report.forms {
        let Some(routing) = &form.measures.routing else { continue };
        let _ = writeln!(
            rows,
            "| {} | {} | {} | {:.4} | {:.2} % in layer {} |",
            cell(&label(form)),
            percent(routing.agreement),
            percent(routing.same),
            routing.usage_correlation,
            routing.worst.agreement * 100.0,
            routing.worst.layer,
        );
    }
    if rows.is_empty() {
        return rows;
    }
    let head = "| form | experts that the original chose too | all the same | correlation of use | least |\n|---|---|---|---|---|";
    format!("\n{head}\n{rows}")
}

fn label(form: &Validated) -> String {
    format!("{} {}", form.format, form.precision)
}

fn estimate(estimate: Estimate, digits: usize) -> String {
    format!("{:.digits$} ± {:.digits$}", estimate.value, estimate.error)
}

fn percent(estimate: Estimate) -> String {
    format!("{:.2} ± {:.2} %", estimate.value * 100.0, estimate.error * 100.0)
}

fn written(form: &Validated) -> String {
    let generation = &form.measures.generation;
    match generation.prompts {
        0 => "—".to_owned(),
        prompts => {
            format!("{:.1} % ({} of {prompts} whole)", generation.match_rate * 100.0, generation.exact)
        }
    }
}

fn limits(limits: &Limits) -> String {
    let rows = [
        ("mean KLD at most", limits.kld),
        ("KLD of 99 % at most", limits.kld_p99),
        ("perplexity ratio at most", limits.perplexity_ratio),
        ("same first choice at least", limits.top1),
        ("same text at least", limits.generation),
        ("same experts at least", limits.router),
    ];
    let rows: Vec<String> =
        rows.iter().filter_map(|(what, limit)| limit.map(|limit| format!("{what} {limit}"))).collect();
    if rows.is_empty() { "none".to_owned() } else { rows.join(", ") }
}

/// A name as part of a file's name.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect()
}

/// Text inside a table: names come from files that anybody may have made.
fn cell(text: &str) -> String {
    let escape = |c: char| match c {
        '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' => format!("\\{c}"),
        c if c.is_control() => " ".to_owned(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}
