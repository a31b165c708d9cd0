//! Checks of a quantizer with a source: what it plans, what it writes, and what is left of a run that was stopped.

use std::ops::ControlFlow;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use serde_json::{Value, json};

use super::model::growth;
use super::quantizer::{refuses, run};
use super::runner::{Finding, Runner, fault, is_fault, passed, refused, refused_somehow, skipped, within};
use super::scratch::{Scratch, copy_halved, size};
use super::sink::orderly;
use super::text::together;
use crate::host::LoadedQuantizer;
use crate::host::manifest::digest;
use crate::{
    Cancel, OutputFile, QuantizePlan, QuantizeReport, QuantizeRequest, Quantizer, QuantizerInfo, Result,
    SUMS, codes, sums_of,
};

/// A quantizer with what it is asked for.
#[derive(Clone)]
struct Job {
    quantizer: Arc<dyn Quantizer>,
    source: PathBuf,
    precision: String,
}

impl Job {
    /// The request that writes into a folder of `scratch`, which is not there yet.
    fn request(&self, scratch: &Scratch) -> QuantizeRequest {
        QuantizeRequest {
            source: self.source.clone(),
            output: scratch.0.join("out"),
            precision: self.precision.clone(),
            options: Value::Null,
        }
    }
}

/// All checks of one quantizer with one source.
pub(super) fn check(runner: &mut Runner, loaded: &LoadedQuantizer, path: &Path) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    runner.subject(format!("quantizer {}, source {name}", loaded.info.id));
    let (quantizer, info, source) = (Arc::clone(&loaded.quantizer), loaded.info.clone(), path.to_path_buf());
    let found = Arc::new(OnceLock::new());
    let keep = Arc::clone(&found);
    let planned = runner.run("plans, and writes nothing", move || {
        let (job, plan, finding) = plan(quantizer, &info, source)?;
        // Set once: this is the only check that does.
        let _ = keep.set((job, plan));
        finding
    });
    let Some((job, plan)) = found.get().filter(|_| planned).cloned() else { return };

    type Change = fn(&mut QuantizeRequest);
    let changes: [(&str, Change); 2] = [
        ("refuses an unknown precision", |r| r.precision = "no-such-precision".into()),
        ("refuses an unknown option", |r| r.options = json!({"no-such-option": 1})),
    ];
    for (name, change) in changes {
        let job = job.clone();
        runner.run(name, move || {
            let output = Scratch::new()?;
            let mut request = job.request(&output);
            change(&mut request);
            let finding = refuses(&*job.quantizer, &request, &[codes::INVALID_OPTION])?;
            output.untouched()?;
            Ok(finding)
        });
    }
    let (a, expected) = (job.clone(), plan.clone());
    if !runner.run("writes what it planned", move || writes(&a, &expected)) {
        return;
    }
    let a = job.clone();
    runner.run("leaves a file alone where its folder should be", move || occupied(&a));
    let (a, patience) = (job.clone(), runner.options.patience);
    runner.run("does not quantize once cancelled", move || {
        let output = Scratch::new()?;
        let request = a.request(&output);
        let cancel = Cancel::new();
        cancel.cancel();
        let result = within(patience, move || run(&*a.quantizer, &request, &cancel));
        let finding = refused(result.ok_or("it still runs")?, &[codes::CANCELLED])?;
        output.untouched()?;
        Ok(finding)
    });
    let (a, patience) = (job.clone(), runner.options.patience);
    runner.run("stops when cancelled in the middle", move || stops(&a, patience, Stop::Flag));
    let (a, patience) = (job.clone(), runner.options.patience);
    let stops_early = runner.run("stops when progress says so", move || stops(&a, patience, Stop::Progress));
    let a = job.clone();
    runner.run("survives a source cut in half", move || truncated(&a));
    let (a, threads) = (job.clone(), runner.options.threads);
    runner.run("plans on several threads at once", move || {
        let output = Scratch::new()?;
        together(threads, || a.quantizer.plan(&a.request(&output)).map(drop))
    });
    let cycles = runner.options.cycles;
    runner.run("gives its memory back", move || {
        growth(if stops_early { "stopped runs" } else { "plans" }, cycles, || {
            let output = Scratch::new()?;
            let request = job.request(&output);
            job.quantizer.plan(&request).map_err(fault("plan"))?;
            if stops_early {
                // Stopped at once, so that a large source takes no longer than a small one. That it stops was checked.
                let mut stop = |_: f32, _: &str| ControlFlow::Break(());
                let _ = job.quantizer.run(&request, &mut stop, &Cancel::new());
            }
            Ok(plan.peak_memory)
        })
    });
}

/// The first precision that the source can be quantized to, with its plan.
fn plan(
    quantizer: Arc<dyn Quantizer>,
    info: &QuantizerInfo,
    source: PathBuf,
) -> std::result::Result<(Job, QuantizePlan, Finding), String> {
    let output = Scratch::new()?;
    let mut job = Job { quantizer, source, precision: String::new() };
    let mut last = String::from("it has no precisions");
    for precision in &info.precisions {
        job.precision.clone_from(precision);
        let plan = match job.quantizer.plan(&job.request(&output)) {
            Ok(plan) => plan,
            Err(error) if is_fault(&error) => return Err(error.to_string()),
            // Precisions may need what was not given, as an importance matrix.
            Err(error) => {
                last = format!("no precision can be planned; `{precision}`: {error}");
                continue;
            }
        };
        sound(&plan.files)?;
        output.untouched()?;
        if job.quantizer.plan(&job.request(&output)).map_err(fault("the second plan"))? != plan {
            return Err("the second plan is another one".into());
        }
        let finding = passed(format!("{precision}: {} file(s)", plan.files.len()));
        return Ok((job, plan, finding));
    }
    Err(last)
}

/// Requires files that lie below the output folder, each once.
fn sound(files: &[OutputFile]) -> std::result::Result<(), String> {
    if files.is_empty() {
        return Err("it plans no files".into());
    }
    for (index, file) in files.iter().enumerate() {
        let path = file.path.display();
        if !file.path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(format!("`{path}` does not lie below the output folder"));
        }
        if files[..index].iter().any(|earlier| earlier.path == file.path) {
            return Err(format!("`{path}` is planned twice"));
        }
    }
    Ok(())
}

fn writes(job: &Job, plan: &QuantizePlan) -> Finding {
    let output = Scratch::new()?;
    let mut reports: Vec<f32> = Vec::new();
    let mut listen = |fraction: f32, _: &str| {
        reports.push(fraction);
        ControlFlow::Continue(())
    };
    let request = job.request(&output);
    let report = job.quantizer.run(&request, &mut listen, &Cancel::new()).map_err(fault("run"))?;
    orderly(&reports)?;
    let sorted = |files: &[OutputFile]| {
        let mut files: Vec<_> = files.iter().map(|f| (Path::new("out").join(&f.path), f.bytes)).collect();
        files.sort();
        files
    };
    let planned = sorted(&plan.files);
    let written = output.files()?;
    same("planned", &planned, "written", &written)?;
    same("planned", &planned, "reported", &sorted(&report.files))?;
    for (path, sum) in sums_of(&*job.quantizer, &request.output).map_err(fault(SUMS))? {
        let found = digest(&request.output.join(&path)).map_err(fault(SUMS))?;
        if found != sum {
            return Err(format!("{SUMS}: `{}` has the sum {found}, not {sum}", path.display()));
        }
    }
    let bytes: u64 = written.iter().map(|(_, bytes)| bytes).sum();
    passed(format!("{bytes} bytes, {} report(s)", reports.len()))
}

/// Requires the same files of the same sizes.
fn same(
    one: &str,
    files: &[(PathBuf, u64)],
    other: &str,
    others: &[(PathBuf, u64)],
) -> std::result::Result<(), String> {
    let lacks = |files: &[(PathBuf, u64)], others: &[(PathBuf, u64)]| {
        let file = files.iter().find(|file| !others.contains(file))?;
        Some(format!("`{}` of {} bytes", file.0.display(), file.1))
    };
    if let Some(file) = lacks(files, others) {
        return Err(format!("{file} was {one}, but not {other}"));
    }
    match lacks(others, files) {
        Some(file) => Err(format!("{file} was {other}, but not {one}")),
        None => Ok(()),
    }
}

fn occupied(job: &Job) -> Finding {
    const WORDS: &str = "not yours";
    let output = Scratch::new()?;
    let request = job.request(&output);
    std::fs::write(&request.output, WORDS).map_err(|e| format!("{}: {e}", request.output.display()))?;
    let finding = refused_somehow(run(&*job.quantizer, &request, &Cancel::new()))?;
    match std::fs::read_to_string(&request.output) {
        Ok(words) if words == WORDS => Ok(finding),
        _ => Err("the file is not what it was".into()),
    }
}

/// How a run is asked to stop, at its first report.
#[derive(Clone, Copy)]
enum Stop {
    /// By the flag alone.
    Flag,
    /// By the answer to the report alone.
    Progress,
}

/// What a run that is to be stopped tells.
enum Told {
    /// That it was asked to stop, and how far it was.
    Asked(f32),
    /// How it ended.
    Ended(Result<QuantizeReport>),
}

fn stops(job: &Job, patience: Duration, how: Stop) -> Finding {
    let output = Scratch::new()?;
    let (request, quantizer) = (job.request(&output), Arc::clone(&job.quantizer));
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let (cancel, mut asked) = (Cancel::new(), false);
        let mut listen = |fraction: f32, _: &str| {
            if !std::mem::replace(&mut asked, true) {
                if matches!(how, Stop::Flag) {
                    cancel.cancel();
                }
                // Nobody listens any more when the check has taken too long.
                let _ = tell.send(Told::Asked(fraction));
            }
            if matches!(how, Stop::Progress) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let result = quantizer.run(&request, &mut listen, &cancel);
        let _ = tell.send(Told::Ended(result));
    });
    // The check's own deadline bounds the wait for the first report.
    let at = match told.recv() {
        Ok(Told::Asked(at)) => at,
        Ok(Told::Ended(result)) => {
            result.map_err(fault("run"))?;
            return skipped("quantizing this source reports no progress");
        }
        Err(_) => return Err("the run ended without a word".into()),
    };
    let finding = match told.recv_timeout(patience) {
        Ok(Told::Ended(Ok(_))) if at >= 1.0 => return skipped("its first report is that it is done"),
        Ok(Told::Ended(result)) => refused(result, &[codes::CANCELLED])?,
        _ => return Err(format!("it still runs {} s after it was asked to stop", patience.as_secs_f32())),
    };
    output.untouched()?;
    Ok(finding)
}

/// Half a source may still be one, but must not end in a panic, and what is refused leaves nothing.
fn truncated(job: &Job) -> Finding {
    const MOST: u64 = 512 << 20;
    let problem = |e: std::io::Error| format!("{}: {e}", job.source.display());
    let bytes = size(&job.source).map_err(problem)?;
    if bytes > MOST {
        return skipped(format!("the source is too large to copy half of it ({bytes} bytes)"));
    }
    let (folder, output) = (Scratch::new()?, Scratch::new()?);
    let source = folder.0.join(job.source.file_name().unwrap_or_default());
    copy_halved(&job.source, &source).map_err(problem)?;
    let request = QuantizeRequest { source, ..job.request(&output) };
    let planned = job.quantizer.plan(&request).map(drop);
    let ran = run(&*job.quantizer, &request, &Cancel::new()).map(drop);
    for result in [planned, ran] {
        match result {
            Ok(()) => {}
            Err(error) if is_fault(&error) => return Err(error.to_string()),
            Err(error) => {
                output.untouched()?;
                return passed(error.to_string());
            }
        }
    }
    passed("half of it is a source too")
}
