//! Bad input: whatever is wrong with a model, a picture or a stage ends in an error with a code, and the host lives.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::{Path, PathBuf};

use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{Finished, House, Server, asset, model_entry, pajamas, piped, run};
use serde_json::{Value, json};

fn repository_file(path: &str) -> Vec<u8> {
    fs::read(repository().join(path)).unwrap()
}

/// A damaged file in a folder of its own.
struct Damaged {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Damaged {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        Self { _folder: folder, path }
    }
}

/// The refusal of a model that is damaged names the file and crashes nothing.
fn invalid(what: &str, finished: &Finished, path: &Path) {
    assert_eq!(finished.refusal().unwrap(), ("model-invalid".into(), 2), "{what}: {}", finished.stderr);
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(finished.stderr.contains(name), "{what}: {}", finished.stderr);
    assert_eq!(finished.stdout, "", "{what}");
}

/// The chat model with the offset of one tensor moved out of the file.
fn with_tensor_outside(mut gguf: Vec<u8>) -> Vec<u8> {
    // A tensor's entry: its name, u32 dimensions, a u64 for each, u32 type, u64 offset.
    let name = b"output_norm.weight";
    let at = gguf.windows(name.len()).position(|w| w == name).unwrap() + name.len();
    let dimensions = u32::from_le_bytes(gguf[at..at + 4].try_into().unwrap()) as usize;
    let offset = at + 4 + 8 * dimensions + 4;
    gguf[offset..offset + 8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    gguf
}

#[test]
fn a_damaged_gguf_is_refused() {
    let sound = repository_file("models/chat/model.gguf");
    let wrong_magic = [b"FUGG", &sound[4..]].concat();
    for (what, bytes) in [
        ("of no bytes", &sound[..0]),
        ("of another kind", &wrong_magic),
        ("cut off within its magic", &sound[..3]),
        ("cut off within its header", &sound[..2000]),
        ("cut off within its tensors", &sound[..sound.len() / 2]),
        ("with a tensor outside", &with_tensor_outside(sound.clone())),
    ] {
        let file = Damaged::new("damaged.gguf", bytes);
        let path = file.path.to_str().unwrap();
        invalid(what, &run(["generate", "--model", path, "Hello"]).unwrap(), &file.path);
        invalid(what, &run(["tokenize", "--json", "--model", path, "Hello"]).unwrap(), &file.path);
    }
}

#[test]
fn a_damaged_onnx_is_refused_by_both_engines() {
    let sound = repository_file("models/detect/model.onnx");
    let mut scrambled = sound.clone();
    // The type of the graph's first field becomes one that does not exist.
    scrambled[0] = 0xff;
    for (what, bytes) in [
        ("of no bytes", &sound[..0]),
        ("of another kind", b"This is a letter to a friend, not a model.".as_slice()),
        ("scrambled", &scrambled),
        ("cut off", &sound[..sound.len() / 2]),
    ] {
        let file = Damaged::new("damaged.onnx", bytes);
        let path = file.path.to_str().unwrap();
        invalid(what, &run(["detect", "--model", path, "models/sample.png"]).unwrap(), &file.path);
        let house =
            House::new(&model_entry("damaged", &file.path, "backend = \"rten\"\ntask = \"detect\"")).unwrap();
        invalid(what, &house.run(["detect", "models/sample.png"]).unwrap(), &file.path);
    }
}

#[test]
fn a_model_that_cannot_do_what_is_asked_says_what_it_can() {
    let picture = "models/sample.png";
    let chat = run(["detect", "--model", "models/chat/model.gguf", picture]).unwrap();
    let (_, status) = chat.refusal().unwrap();
    assert_eq!(status, 2, "{}", chat.stderr);
    let detector = run(["generate", "--model", "models/detect/model.onnx", "Hello"]).unwrap();
    let (_, status) = detector.refusal().unwrap();
    assert_eq!(status, 2, "{}", detector.stderr);
    let unknown = run(["detect", "--model", "shape", picture]).unwrap();
    assert_eq!(unknown.refusal().unwrap(), ("model-not-found".into(), 3));
    assert!(unknown.stderr.contains("did you mean `shapes`?"), "{}", unknown.stderr);
    let gone = run(["detect", "--model", "models/detect/modle.onnx", picture]).unwrap();
    assert_eq!(gone.refusal().unwrap(), ("model-not-found".into(), 3));
    assert!(gone.stderr.contains("model.onnx"), "{}", gone.stderr);
    // What every picture would meet is said once.
    let twice = run(["detect", "--model", "shape", picture, picture]).unwrap();
    assert_eq!(twice.refusal().unwrap(), ("model-not-found".into(), 3));
    assert_eq!(twice.stderr.matches("did you mean").count(), 1, "{}", twice.stderr);
    // A folder stands for its pictures.
    let folder = run(["detect", "models/chat"]).unwrap();
    assert_eq!(folder.refusal().unwrap(), ("file-not-found".into(), 3));
}

/// What a picture must end as: its size, or a code.
type Outcome = Result<(u32, u32), &'static str>;

/// The odd pictures of the assets.
const PICTURES: &[(&str, Outcome)] = &[
    ("avif_hopper.avif", Err("image-unsupported")),
    ("bmp_b_badwidth.bmp", Err("image-invalid")),
    ("bmp_g_pal8.bmp", Ok((127, 64))),
    ("broken_exif_dpi.jpg", Ok((100, 100))),
    ("decompression_bomb.gif", Err("image-invalid")),
    ("dispose_bgnd.gif", Ok((100, 100))),
    ("flower.webp", Ok((480, 360))),
    ("hopper.bmp", Ok((128, 128))),
    ("hopper.jpg", Ok((128, 128))),
    ("hopper.png", Ok((128, 128))),
    ("hopper_16bit.pgm", Ok((128, 128))),
    ("hopper_gray.jpg", Ok((128, 128))),
    ("hopper_orientation_3.jpg", Ok((128, 128))),
    ("hopper_orientation_6.jpg", Ok((128, 128))),
    ("hopper_orientation_8.jpg", Ok((128, 128))),
    ("pil123rgba.png", Ok((162, 150))),
    ("pil_sample_cmyk.jpg", Ok((100, 100))),
    ("tiff_16bit_RGB.tiff", Ok((100, 40))),
    ("truncated_image.png", Err("image-invalid")),
    // As browsers do: what is there is shown.
    ("truncated_jpeg.jpg", Ok((100, 100))),
    ("zero_width.gif", Err("image-invalid")),
];

/// All pictures in one command: those that are damaged do not stop the others.
#[test]
fn every_odd_picture_is_decoded_or_refused_with_a_code() {
    let Some(folder) = asset("images/formats") else { return };
    let file = |name: &str| folder.join(name).display().to_string();
    let arguments = ["detect", "--json", "--model", "models/detect/model.onnx"].map(str::to_owned);
    let finished = run(arguments.into_iter().chain(PICTURES.iter().map(|(name, _)| file(name)))).unwrap();
    let seen = finished.lines().unwrap();
    let errors: Vec<Value> =
        finished.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for (name, outcome) in PICTURES {
        let own = file(name);
        let seen = seen.iter().find(|s| s["image"] == own.as_str()).map(|s| (&s["width"], &s["height"]));
        let error =
            errors.iter().map(|e| &e["error"]).find(|e| e["message"].as_str().unwrap().starts_with(&own));
        match outcome {
            Ok((width, height)) => {
                assert_eq!(seen, Some((&json!(width), &json!(height))), "{name}: {error:?}")
            }
            Err(code) => {
                let error = error.unwrap_or_else(|| panic!("{name} is not refused: {seen:?}"));
                assert_eq!((seen, error["code"].as_str()), (None, Some(*code)), "{name}");
                assert_eq!(
                    error["message"].as_str().unwrap().matches(&own).count(),
                    1,
                    "named once: {error}"
                );
            }
        }
    }
    assert_eq!(
        finished.refusal().unwrap(),
        ("image-unsupported".into(), 2),
        "the first refusal is the command's"
    );
    assert!(!finished.panicked(), "{}", finished.stderr);
}

/// A few thousand bytes that claim, and in the second case hold, hundreds of millions of pixels.
#[test]
fn a_decompression_bomb_is_refused_before_it_is_unpacked() {
    let mut bomb = Vec::new();
    let mut encoder = png::Encoder::new(&mut bomb, 24_000, 24_000);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    encoder.write_header().unwrap().write_image_data(&vec![0; 24_000 * 3_000]).unwrap();
    assert!(bomb.len() < 1 << 20, "{} bytes", bomb.len());
    for (name, bytes) in [("bomb.png", bomb.as_slice()), ("claim.pgm", b"P5 60000 60000 255\n".as_slice())] {
        let file = Damaged::new(name, bytes);
        let path = file.path.to_str().unwrap();
        let refused = run(["detect", "--model", "models/detect/model.onnx", path]).unwrap();
        assert_eq!(refused.refusal().unwrap(), ("image-too-large".into(), 4), "{name}");
        assert_eq!(refused.stderr.matches(name).count(), 1, "named once: {}", refused.stderr);
    }
    let gone = run(["detect", "--model", "models/detect/model.onnx", "no-such.png"]).unwrap();
    assert_eq!(gone.refusal().unwrap(), ("file-not-found".into(), 3));
    assert_eq!(gone.stderr.matches("no-such.png").count(), 1, "named once: {}", gone.stderr);
}

const MISBEHAVING: &str = "wasm-stages/built/test-misbehaving.wasm";

#[test]
fn a_stage_that_misbehaves_is_stopped() {
    for (mode, limit, code, status) in [
        ("loop", "deadline=200ms", "stage-deadline", 5),
        ("loop-in-create", "deadline=200ms", "stage-deadline", 5),
        ("panic", "deadline=10s", "stage-trapped", 1),
        ("recurse", "deadline=10s", "stage-trapped", 1),
        ("four-gigabytes", "memory=512MiB", "stage-memory", 4),
        ("eat-memory", "memory=64MiB", "stage-memory", 4),
        ("too-much", "output=1MiB", "stage-output-too-large", 4),
        ("lying-shape", "deadline=10s", "stage-output-invalid", 1),
    ] {
        let (set, options) = (format!("stages.limits.{limit}"), json!({ "mode": mode }).to_string());
        let finished =
            run(["--set", &set, "stages", "run", MISBEHAVING, "text=@x", "--options", &options]).unwrap();
        assert_eq!(finished.refusal().unwrap(), (code.into(), status), "{mode}: {}", finished.stderr);
        assert_eq!(finished.stdout, "", "{mode}");
    }
    let sound = run(["--json", "stages", "run", MISBEHAVING, "text=@x"]).unwrap().json().unwrap();
    assert_eq!(sound, [json!({ "name": "text", "kind": "text", "value": "x1" })]);
}

#[test]
fn what_is_no_stage_is_refused() {
    let foreign = run(["stages", "inspect", "wasm-stages/built/test-foreign-import.wasm"]).unwrap();
    assert_eq!(foreign.refusal().unwrap(), ("stage-import-refused".into(), 2));
    let text = Damaged::new("letter.wasm", b"Dear friend");
    let text = run(["stages", "inspect", text.path.to_str().unwrap()]).unwrap();
    assert_eq!(text.refusal().unwrap(), ("stage-invalid".into(), 2));
    let unknown = run(["stages", "inspect", "leterbox"]).unwrap();
    assert_eq!(unknown.refusal().unwrap().0, "stage-not-found");
    assert!(unknown.stderr.contains("letterbox"), "{}", unknown.stderr);
}

/// In a pipeline of a running host: only the request is lost.
#[test]
fn the_host_outlives_its_stages() {
    let model = repository().join("models/detect/model.onnx");
    let mut toml = format!("[stages]\nsearch = ['{}']\n", repository().join("wasm-stages/built").display());
    toml += &model_entry("shapes", &model, "task = \"detect\"");
    for mode in ["loop", "panic", "four-gigabytes"] {
        toml += &model_entry(mode, &model, &format!("task = \"detect\"\npipeline = \"{mode}\""));
        toml += &format!(
            "[[pipelines]]\nid = \"{mode}\"\ntask = \"detect\"\nsteps = [{{ stage = \"test-misbehaving\", \
             options = {{ mode = \"{mode}\" }}, limits = {{ deadline = \"300ms\" }} }}, {{ model = true }}]\n"
        );
    }
    let server = Server::start(House::new(&toml).unwrap()).unwrap();
    let (kind, picture) = ("image/png", repository_file("models/sample.png"));
    let detect = |model: &str| {
        let body = json!({ "model": model, "image": base64(&picture) });
        server.post_json("/v1/images/detect", &body).unwrap()
    };
    let sound = detect("shapes").json().unwrap();
    for (mode, status, code) in [
        ("loop", 503, "stage-deadline"),
        ("panic", 500, "stage-trapped"),
        ("four-gigabytes", 413, "stage-memory"),
    ] {
        let (found, error) = detect(mode).refusal().unwrap();
        assert_eq!((found, error["code"].as_str()), (status, Some(code)), "{error}");
        assert_eq!(detect("shapes").json().unwrap(), sound, "after {mode}");
    }
    let (status, error) = server.post("/v1/images/detect", kind, &picture[..300]).unwrap().refusal().unwrap();
    assert_eq!(
        (status, error["code"].as_str()),
        (400, Some("model-not-chosen")),
        "four could do it: {error}"
    );
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Arguments and standard input of the wrong kind.
#[test]
fn a_command_line_that_makes_no_sense_is_refused() {
    for arguments in [&["detect"][..], &["fly"], &["detect", "--confidence", "high", "a.png"], &["plugins"]] {
        let finished = run(arguments).unwrap();
        assert_eq!(finished.status.code(), Some(2), "{arguments:?}: {}", finished.stderr);
        assert!(
            finished.stderr.contains("--help") || finished.stderr.contains("Usage"),
            "{}",
            finished.stderr
        );
    }
    let set = run(["--set", "server.listen", "config", "check"]).unwrap();
    assert_eq!(set.refusal().unwrap(), ("invalid-option".into(), 2));
    let option =
        run(["detect", "--model", "models/detect/model.onnx", "--confidence", "7", "models/sample.png"])
            .unwrap();
    assert_eq!(option.refusal().unwrap().1, 2, "{}", option.stderr);
    let mut command = pajamas().unwrap();
    command.args(["tokenize", "--model", "models/chat/model.gguf"]);
    let text = Damaged::new("latin-1.txt", b"caf\xe9");
    let child = piped(command.stdin(fs::File::open(&text.path).unwrap())).spawn().unwrap();
    assert_eq!(Finished::wait(child).unwrap().refusal().unwrap(), ("invalid-input".into(), 2));
}
