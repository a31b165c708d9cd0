//! Journeys of loading: real dylibs, good and bad, through the loader and into their sessions.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::Path;
use std::sync::mpsc;

use pajamas_journeys::fixtures::{Packed, liar, plugin};
use pajamas_plugin_api::host::{LoadedPlugin, MANIFEST_NAME, Manifest, Outcome, Policy, Report, Step, open};
use pajamas_plugin_api::{
    Cancel, DType, GenerateRequest, HostContext, HostServices, InferRequest, Level, LoadRequest, NamedTensor,
    OutputSpec, PluginError, Prompt, Result, Session, TensorSink, TensorView, TensorViewMut, as_bytes,
};
use serde_json::{Value, json};

const STRICT: Policy = Policy { require_hash: true };
const LENIENT: Policy = Policy { require_hash: false };

/// A host that only has settings.
struct Settings(Value);

impl HostServices for Settings {
    fn log(&self, _: Level, _: &str) {}
    fn plugin_dir(&self) -> std::path::PathBuf {
        std::path::PathBuf::new()
    }
    fn settings(&self) -> Value {
        self.0.clone()
    }
}

fn load(path: &Path, policy: Policy, settings: Value) -> (Report, Option<LoadedPlugin>) {
    open(path, policy, |_, _| HostContext::new(Settings(settings)))
}

/// The step that failed, and its code.
fn refusal(path: &Path, policy: Policy) -> (Step, String) {
    let (report, plugin) = load(path, policy, Value::Null);
    assert!(plugin.is_none(), "{report:?}");
    let failed = report.steps.last().unwrap();
    assert_eq!(failed.outcome, Outcome::Failed, "{report:?}");
    assert!(!failed.detail.is_empty());
    (failed.step, failed.code.clone().unwrap())
}

fn minimal() -> Packed {
    Packed::new(&plugin("examples/backend-minimal").unwrap(), "minimal", "0.1.0").unwrap()
}

fn packed_liar(name: &str) -> Packed {
    Packed::new(&liar(name).unwrap(), "liar", "0.1.0").unwrap()
}

/// The plugin `misbehaving` with settings; without them it loads.
fn misbehaving(settings: Value) -> (Report, Option<LoadedPlugin>) {
    load(&plugin("tests/plugins/misbehaving").unwrap(), LENIENT, settings)
}

/// A session of the backend `trouble` whose model holds `word`.
fn trouble(folder: &Path, word: &str) -> Result<Box<dyn Session>> {
    let (report, plugin) = misbehaving(Value::Null);
    let plugin = plugin.unwrap_or_else(|| panic!("{report:?}"));
    plugin.backends[0].backend.load(&model(folder, word), &mut ignore(), &Cancel::new())
}

fn model(folder: &Path, word: &str) -> LoadRequest {
    let path = folder.join(format!("{word}.trouble"));
    fs::write(&path, word).unwrap();
    LoadRequest { path, format: "trouble".into(), device: String::new(), options: Value::Null }
}

fn ignore() -> impl FnMut(f32, &str) -> std::ops::ControlFlow<()> {
    |_, _| std::ops::ControlFlow::Continue(())
}

/// Outputs of at most 1 KiB each, one at a time.
#[derive(Default)]
struct Outputs(Vec<(String, DType, Vec<u64>, Vec<u8>)>);

impl TensorSink for Outputs {
    fn allocate<'s>(&'s mut self, outputs: &[OutputSpec<'_>]) -> Result<Vec<TensorViewMut<'s>>> {
        let [output] = outputs else {
            return Err(PluginError::new("plugin-protocol", "one output at a time"));
        };
        let bytes = pajamas_plugin_api::byte_len(output.dtype, output.shape)?;
        if bytes > 1024 {
            return Err(PluginError::new("output-too-large", format!("{bytes} bytes")));
        }
        self.0.push((output.name.into(), output.dtype, output.shape.to_vec(), vec![0; bytes]));
        let memory = &mut self.0.last_mut().unwrap().3;
        Ok(vec![TensorViewMut::new(output.dtype, output.shape, memory)?])
    }
}

/// Runs a session on `x` = [[1, 2]] and checks what it wrote, as a host does.
fn infer(session: &dyn Session) -> Result<Vec<u8>> {
    let values = [1.0f32, 2.0];
    let x = NamedTensor { name: "x", tensor: TensorView::new(DType::F32, &[1, 2], as_bytes(&values))? };
    let (request, mut outputs) = (InferRequest::default(), Outputs::default());
    session.infer(&request, &[x], &mut outputs, &Cancel::new())?;
    let written = outputs.0.iter().map(|(name, dtype, shape, _)| (name.as_str(), *dtype, shape.as_slice()));
    session.signature().check_outputs(&request, written)?;
    Ok(outputs.0.remove(0).3)
}

fn generate(session: &dyn Session, cancel: &Cancel) -> Result<String> {
    struct Text(String);
    impl pajamas_plugin_api::TokenSink for Text {
        fn token(&mut self, event: pajamas_plugin_api::TokenEvent<'_>) -> std::ops::ControlFlow<()> {
            self.0.push_str(event.text);
            std::ops::ControlFlow::Continue(())
        }
    }
    let request = GenerateRequest { max_tokens: Some(4), ..GenerateRequest::new(Prompt::text("ab")) };
    let mut text = Text(String::new());
    session.generate(&request, &mut text, cancel)?;
    Ok(text.0)
}

#[test]
fn a_sound_plugin_passes_every_step_and_computes() {
    let packed = minimal();
    for path in [packed.folder().to_path_buf(), packed.folder().join(MANIFEST_NAME), packed.library()] {
        let (report, plugin) = load(&path, STRICT, Value::Null);
        let steps: Vec<Step> = report.steps.iter().map(|s| s.step).collect();
        use Step::*;
        assert_eq!(steps, [Manifest, Platform, Hash, Open, Probe, Layout, Create, Score]);
        assert!(report.steps.iter().all(|s| s.outcome == Outcome::Passed), "{report:?}");
        assert_eq!(plugin.unwrap().info.name, "minimal");
    }
    let (_, plugin) = load(packed.folder(), STRICT, Value::Null);
    let path = packed.folder().join("twice.scale");
    fs::write(&path, "2").unwrap();
    let request = LoadRequest { path, format: "scale".into(), device: String::new(), options: Value::Null };
    let session = plugin.unwrap().backends[0].backend.load(&request, &mut ignore(), &Cancel::new()).unwrap();
    let x = [1.5f32, -4.0];
    let x = NamedTensor { name: "x", tensor: TensorView::new(DType::F32, &[2], as_bytes(&x)).unwrap() };
    let mut outputs = Outputs::default();
    session.infer(&InferRequest::default(), &[x], &mut outputs, &Cancel::new()).unwrap();
    assert_eq!(outputs.0[0].3, as_bytes(&[3.0f32, -8.0]));
}

#[test]
fn what_the_manifest_says_is_checked_before_the_library_is_opened() {
    let no_manifest = minimal();
    fs::remove_file(no_manifest.folder().join(MANIFEST_NAME)).unwrap();
    assert_eq!(refusal(no_manifest.folder(), STRICT), (Step::Manifest, "plugin-manifest-missing".into()));
    assert_eq!(refusal(&no_manifest.library(), STRICT), (Step::Manifest, "plugin-manifest-missing".into()));
    assert!(load(&no_manifest.library(), LENIENT, Value::Null).1.is_some(), "a named file needs no manifest");

    let broken = minimal();
    fs::write(broken.folder().join(MANIFEST_NAME), "name = ").unwrap();
    assert_eq!(refusal(broken.folder(), STRICT), (Step::Manifest, "plugin-manifest-invalid".into()));

    let elsewhere = minimal().edit(|m| m.platforms = vec!["plan9-mips".into()]).unwrap();
    assert_eq!(refusal(elsewhere.folder(), STRICT), (Step::Platform, "plugin-platform-mismatch".into()));
    let (report, _) = load(elsewhere.folder(), STRICT, Value::Null);
    assert_eq!(report.manifest.unwrap().name, "minimal", "a refused plugin still shows its manifest");

    let future = minimal().edit(|m| m.abi = "2.0".into()).unwrap();
    assert_eq!(refusal(future.folder(), STRICT), (Step::Platform, "plugin-abi-incompatible".into()));

    let unhashed = minimal().edit(|m| m.sha256 = None).unwrap();
    assert_eq!(refusal(unhashed.folder(), STRICT), (Step::Hash, "plugin-hash-missing".into()));
    assert!(load(unhashed.folder(), LENIENT, Value::Null).1.is_some());

    let changed = minimal();
    let mut bytes = fs::read(changed.library()).unwrap();
    bytes.push(0);
    fs::write(changed.library(), bytes).unwrap();
    for policy in [STRICT, LENIENT] {
        assert_eq!(refusal(changed.folder(), policy), (Step::Hash, "plugin-hash-mismatch".into()));
    }

    let gone = minimal();
    fs::remove_file(gone.library()).unwrap();
    assert_eq!(refusal(gone.folder(), STRICT), (Step::Hash, "plugin-library-missing".into()));
    assert_eq!(
        refusal(Path::new("/no/such/plugin.so"), LENIENT),
        (Step::Open, "plugin-library-missing".into())
    );
}

#[test]
fn what_is_no_plugin_is_refused_with_its_own_code() {
    let text = minimal();
    fs::write(text.library(), "I am a text file.").unwrap();
    let text = Packed::new(&text.library(), "minimal", "0.1.0").unwrap();
    assert_eq!(refusal(text.folder(), STRICT), (Step::Open, "plugin-open-failed".into()));

    for (name, step, code) in [
        ("foreign", Step::Probe, "plugin-symbol-missing"),
        ("wrong_magic", Step::Probe, "plugin-probe-invalid"),
        ("too_small", Step::Probe, "plugin-probe-invalid"),
        ("wrong_major", Step::Probe, "plugin-abi-incompatible"),
        ("panic_abort", Step::Probe, "plugin-panic-abort"),
        ("no_root_module", Step::Layout, "plugin-symbol-missing"),
    ] {
        assert_eq!(refusal(packed_liar(name).folder(), STRICT), (step, code.into()), "{name}");
    }
    let changes: [fn(&mut Manifest); 3] =
        [|m| m.version = "9.9.9".into(), |m| m.name = "other".into(), |m| m.abi = "1.7".into()];
    for change in changes {
        let mispacked = minimal().edit(change).unwrap();
        assert_eq!(refusal(mispacked.folder(), STRICT), (Step::Probe, "plugin-manifest-mismatch".into()));
    }
}

/// A library that needs another one, which is not there.
#[test]
#[cfg(target_os = "linux")]
fn a_plugin_that_lacks_a_library_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let cc = |arguments: &[&str]| {
        let mut command = std::process::Command::new("cc");
        command.current_dir(folder.path()).args(["-shared", "-x", "c", "/dev/null", "-x", "none"]);
        assert!(command.args(arguments).status().unwrap().success());
    };
    cc(&["-o", "libgone.so"]);
    cc(&["-o", "libneedy.so", "-Wl,--no-as-needed", "-L.", "-lgone"]);
    fs::remove_file(folder.path().join("libgone.so")).unwrap();
    let needy = Packed::new(&folder.path().join("libneedy.so"), "needy", "0.1.0").unwrap();
    let (report, plugin) = load(needy.folder(), STRICT, Value::Null);
    let failed = report.steps.last().unwrap();
    assert!(plugin.is_none());
    assert_eq!((failed.step, failed.code.as_deref()), (Step::Open, Some("plugin-open-failed")), "{report:?}");
    assert!(failed.detail.contains("libgone.so"), "{report:?}");
}

#[test]
fn a_panic_at_birth_refuses_the_plugin_and_spares_the_host() {
    for (entry, step, code) in [
        ("create", Step::Create, "panicked"),
        ("describe", Step::Create, "panicked"),
        ("probe", Step::Score, "plugin-not-for-this-machine"),
    ] {
        let (report, plugin) = misbehaving(json!({"panic": entry}));
        assert!(plugin.is_none());
        let failed = report.steps.last().unwrap();
        assert_eq!((failed.step, failed.code.as_deref()), (step, Some(code)), "{report:?}");
        assert!(failed.detail.contains(&format!("told to panic in {entry}")), "{report:?}");
    }
    assert!(misbehaving(Value::Null).1.is_some(), "the same library still loads");
}

#[test]
fn a_panic_in_a_session_poisons_it_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    for word in ["load-panic", "signature-panic"] {
        let Err(error) = trouble(folder.path(), word) else { panic!("{word} loaded") };
        assert_eq!(error.code, "panicked", "{error}");
    }
    let bad = trouble(folder.path(), "infer-panic").unwrap();
    let good = trouble(folder.path(), "good").unwrap();
    assert_eq!(infer(&*bad).unwrap_err().code, "panicked");
    assert_eq!(infer(&*bad).unwrap_err().code, "session-poisoned");
    assert_eq!(infer(&*good).unwrap(), as_bytes(&[1.0f32, 2.0]));

    let bad = trouble(folder.path(), "generate-panic").unwrap();
    assert_eq!(generate(&*bad, &Cancel::new()).unwrap_err().code, "panicked");
    assert_eq!(generate(&*good, &Cancel::new()).unwrap(), "abab");

    drop(trouble(folder.path(), "drop-panic").unwrap());
    assert!(infer(&*good).is_ok(), "a panicking destructor stays in the plugin");
}

#[test]
fn wrong_output_is_refused_with_its_own_code() {
    let folder = tempfile::tempdir().unwrap();
    for (word, code) in [
        ("infer-wrong-shape", "output-mismatch"),
        ("infer-wrong-type", "output-mismatch"),
        ("infer-surplus", "output-unexpected"),
        ("infer-nothing", "output-missing"),
        ("infer-too-much", "output-too-large"),
        ("infer-misuse", "plugin-protocol"),
    ] {
        let session = trouble(folder.path(), word).unwrap();
        assert_eq!(infer(&*session).unwrap_err().code, code, "{word}");
    }
}

#[test]
fn cancel_crosses_into_a_running_load_and_a_running_generation() {
    let folder = tempfile::tempdir().unwrap();
    let (_, plugin) = misbehaving(Value::Null);
    let plugin = plugin.unwrap();
    let request = model(folder.path(), "load-hang");
    let cancel = Cancel::new();
    let (started, begins) = mpsc::channel();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut progress = move |_: f32, _: &str| {
                let _ = started.send(());
                std::ops::ControlFlow::Continue(())
            };
            plugin.backends[0].backend.load(&request, &mut progress, &cancel).err()
        });
        begins.recv().unwrap();
        assert!(!load.is_finished());
        cancel.cancel();
        assert_eq!(load.join().unwrap().unwrap().code, "cancelled");
    });

    let session = trouble(folder.path(), "generate-hang").unwrap();
    let cancel = Cancel::new();
    std::thread::scope(|scope| {
        let generation = scope.spawn(|| generate(&*session, &cancel));
        cancel.cancel();
        assert_eq!(generation.join().unwrap().unwrap_err().code, "cancelled");
    });
}

#[test]
fn a_session_that_ignores_cancel_holds_only_its_own_thread() {
    let folder = tempfile::tempdir().unwrap();
    let deaf = trouble(folder.path(), "infer-deaf").unwrap();
    let good = trouble(folder.path(), "good").unwrap();
    std::thread::scope(|scope| {
        let stuck = scope.spawn(|| infer(&*deaf));
        assert!(infer(&*good).is_ok(), "the other session works meanwhile");
        assert!(!stuck.is_finished());
        fs::write(folder.path().join("infer-deaf.go"), "").unwrap();
        assert!(stuck.join().unwrap().is_ok());
    });
}
