//! Importance matrices: the numbers are llama-imatrix's, and a run that was stopped goes on to the same ones.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of the functions that clippy knows as tests"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::{Cancel, HostContext, PluginError, Result};
use pajamas_quant::calibrate::{Calibration, Report};
use pajamas_quant::imatrix::{Matrix, Statistics};
use support::{families, repository};

fn host() -> HostContext {
    let program = std::env::current_exe().unwrap();
    HostContext::for_tests(program.ancestors().nth(2).unwrap())
}

/// A text that does not change, long enough for the small vocabularies here.
fn text() -> PathBuf {
    repository().join("LICENSE-APACHE")
}

fn chat(output: PathBuf) -> Calibration {
    let source = repository().join("models/chat/model.gguf");
    Calibration { source, texts: vec![text()], output, threads: Some(1), ..Calibration::default() }
}

fn run(calibration: &Calibration) -> Result<Report> {
    calibration.run(&host(), &mut |_, _| Ok(()), &Cancel::new())
}

/// Against the file that llama-imatrix of the same llama.cpp made, run as
///
/// ```text
/// llama-imatrix -m models/chat/model.gguf -f LICENSE-APACHE -c 512 -b 512 -t 1 --no-ppl -o imatrix.gguf
/// ```
#[test]
fn importance_equals_llama_imatrix() {
    let theirs = Matrix::read(&repository().join("plugins/quant/tests/golden/imatrix.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let report = run(&chat(folder.path().join("ours.gguf"))).unwrap();
    let ours = Matrix::read(&report.output).unwrap();
    assert_eq!((ours.chunks, ours.chunk_size), (theirs.chunks, theirs.chunk_size));
    let names = |matrix: &Matrix| matrix.entries.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    assert_eq!(names(&ours).len(), 3 * 7);
    for (name, wanted) in &theirs.entries {
        let entry = &ours.entries[name];
        assert_eq!(entry.counts, wanted.counts, "{name}");
        // The processor decides on the order of sums inside of a product, and the model is in 16 bits.
        let largest = wanted.sums.iter().copied().fold(0.0, f32::max);
        for (at, (a, b)) in entry.sums.iter().zip(&wanted.sums).enumerate() {
            assert!((a - b).abs() <= 2e-3 * b + 1e-4 * largest, "{name} {at}: ours {a}, theirs {b}");
        }
    }
    let identity = ours.calibration.unwrap();
    assert_eq!((identity.name.as_str(), identity.tokens), ("LICENSE-APACHE", 5120));
    assert_eq!(identity.sha256, support::gguf::hash(&fs::read(text()).unwrap()));

    // The sum of two halves is the whole, within what rounding leaves.
    let mut twice = theirs.clone();
    twice.merge(theirs.clone()).unwrap();
    let one = Statistics::of(&theirs);
    assert_eq!(one.tensors.len(), Statistics::of(&twice).tensors.len());
    assert_eq!(twice.chunks, 20);
}

#[test]
fn a_calibration_that_was_stopped_goes_on_to_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let straight = chat(folder.path().join("straight.gguf"));
    let whole = run(&straight).unwrap();
    assert_eq!((whole.skipped, whole.resumed, whole.chunks), (false, 0, 10));
    // The same again is there already.
    assert!(run(&straight).unwrap().skipped);

    let stopped = chat(folder.path().join("stopped.gguf"));
    let mut pieces = 0;
    let mut stop = |_: f32, message: &str| {
        pieces += u64::from(message.starts_with("piece"));
        if pieces == 5 { Err(PluginError::cancelled()) } else { Ok(()) }
    };
    let error = stopped.run(&host(), &mut stop, &Cancel::new()).unwrap_err();
    assert_eq!(error.code, "cancelled");
    let checkpoint = folder.path().join("stopped.gguf.checkpoint");
    assert!(checkpoint.is_file() && !stopped.output.exists());
    assert_eq!(Matrix::read(&checkpoint).unwrap().chunks, 4);
    // In the middle of a piece: what it brought is taken back.
    let cancel = Cancel::new();
    let mut stop = |_: f32, message: &str| {
        if message.starts_with("piece 7") {
            cancel.cancel();
        }
        Ok(())
    };
    let again = Calibration { resume: true, ..stopped.clone() };
    assert_eq!(again.run(&host(), &mut stop, &cancel).unwrap_err().code, "cancelled");
    assert_eq!(Matrix::read(&checkpoint).unwrap().chunks, 6);
    // Of another text it is nobody's business.
    let other = Calibration { chunks: Some(9), ..again.clone() };
    assert_eq!(run(&other).unwrap_err().code, "checkpoint-mismatch");

    let report = run(&again).unwrap();
    assert_eq!(report.resumed, 6);
    assert_eq!(Matrix::read(&again.output).unwrap(), Matrix::read(&straight.output).unwrap());
    assert_eq!(names(folder.path()), ["stopped.gguf", "straight.gguf"]);
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_text_that_is_too_short_is_refused_with_its_count() {
    let folder = tempfile::tempdir().unwrap();
    let short = folder.path().join("short.txt");
    let text = fs::read_to_string(text()).unwrap();
    fs::write(&short, &text[..3000]).unwrap();
    let parent = tempfile::tempdir().unwrap();
    for source in ["models/chat/model.gguf", "models/chat/hf"] {
        let source = repository().join(source);
        let output = parent.path().join("new/deep/out.gguf");
        let error = run(&Calibration { source, texts: vec![short.clone()], ..chat(output) }).unwrap_err();
        assert_eq!(error.code, "calibration-too-short");
        assert!(error.message.contains("at least 4096 are needed"), "{error}");
        assert!(error.message.contains(" of the model's tokens"), "{error}");
        assert_eq!(names(parent.path()), ["new"; 0], "{error}");
    }
}

/// A folder is calibrated as the file that it is converted to.
#[test]
fn a_folder_gives_the_same_numbers_as_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let of_file = run(&Calibration { chunks: Some(2), ..chat(folder.path().join("file.gguf")) }).unwrap();
    let source = repository().join("models/chat/hf");
    let of_folder =
        run(&Calibration { source, chunks: Some(2), ..chat(folder.path().join("folder.gguf")) }).unwrap();
    let read = |report: &Report| Matrix::read(&report.output).unwrap();
    assert_eq!(read(&of_file).entries, read(&of_folder).entries);
    assert_eq!(names(folder.path()), ["file.gguf", "folder.gguf"]);
}

#[test]
fn experts_that_few_tokens_reach_get_more_text() {
    let model = families::wide().into_iter().find(|model| model.name == "wide-experts").unwrap();
    let parent = tempfile::tempdir().unwrap();
    let source = model.write(parent.path());
    let run_with = |name: &str, balance: bool, chunks: usize| {
        let calibration = Calibration {
            source: source.clone(),
            chunks: Some(chunks),
            chunk_size: Some(32),
            balance,
            ..chat(parent.path().join(name))
        };
        let report = run(&calibration).unwrap();
        (Matrix::read(&report.output).unwrap(), report.experts.unwrap())
    };
    let (plain, unbalanced) = run_with("plain.gguf", false, 8);
    assert_eq!((unbalanced.extra_chunks, &unbalanced.before), (0, &unbalanced.after));
    assert_eq!(unbalanced.before.experts, 2 * 8);
    // Every token chooses two experts in each layer.
    let hits = plain.expert_hits();
    assert_eq!(
        hits.values().map(|of_layer| of_layer.iter().sum::<u64>()).collect::<Vec<_>>(),
        [8 * 32 * 2; 2]
    );
    assert!(unbalanced.before.few > 0, "{hits:?}");

    let (balanced, report) = run_with("balanced.gguf", true, 8);
    assert_eq!(report.before, unbalanced.before);
    assert!(report.extra_chunks > 0 && report.extra_chunks <= 8, "{report:?}");
    assert!(report.after.few < report.before.few || report.after.least > report.before.least, "{report:?}");
    // What was short got more, and nothing else did.
    assert_eq!(balanced.expert_hits(), hits);
    for (name, entry) in &balanced.entries {
        let before = &plain.entries[name];
        let columns = entry.columns().unwrap();
        for (at, (count, was)) in entry.counts.iter().zip(&before.counts).enumerate() {
            let sums = |of: &[f32]| of[at * columns..(at + 1) * columns].to_vec();
            match entry.counts.len() > 1 && *was < 64 {
                true => assert!(count >= was, "{name} {at}"),
                false => assert_eq!((count, sums(&entry.sums)), (was, sums(&before.sums)), "{name} {at}"),
            }
        }
    }
}
