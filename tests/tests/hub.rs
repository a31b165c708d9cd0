//! Models by the ids of their repositories: fetched in parts, checked, kept where other programs find them, and converted.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pajamas_journeys::fixtures::{repository, target};
use pajamas_journeys::hub::{COMMIT, Hub, ID, State, chat_model, sum};
use pajamas_journeys::product::{Finished, piped, run};
use serde_json::{Value, json};
use tempfile::TempDir;

const WEIGHTS: &str = "model.safetensors";
/// What a conversion reads of the chat model.
const READ: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// A hub with the chat model, and a home for its files.
struct House {
    hub: Hub,
    home: TempDir,
}

impl House {
    fn new(change: impl FnOnce(&mut State)) -> Self {
        let mut state = State { files: chat_model().unwrap(), ..State::default() };
        change(&mut state);
        Self { hub: Hub::start(state).unwrap(), home: tempfile::tempdir().unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.hub.command(self.home.path()).unwrap();
        command.args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        Finished::wait(piped(&mut self.command(arguments)).spawn().unwrap()).unwrap()
    }

    fn pull(&self) -> Value {
        self.run(&["pull", "--json", ID]).json().unwrap().remove(0)
    }

    /// The code of a refusal, with its exit status.
    fn refused(&self, arguments: &[&str]) -> (String, i32) {
        let finished = self.run(arguments);
        finished.refusal().unwrap_or_else(|e| panic!("{arguments:?}: {e}"))
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("hub/models--org--tiny")
    }

    fn weights(&self) -> Vec<u8> {
        self.hub.state().files[WEIGHTS].clone()
    }

    /// What came of the weights so far.
    fn incomplete(&self) -> PathBuf {
        self.folder().join("blobs").join(format!("{}.incomplete", sum(&self.weights())))
    }

    /// The first bytes that the weights were asked for from, request by request.
    fn starts(&self) -> Vec<usize> {
        let heard = self.hub.heard();
        heard.iter().filter(|h| h.method == "GET" && h.path.contains(WEIGHTS)).map(|h| h.from).collect()
    }

    /// Whether everything is in the cache as the hub has it.
    fn is_whole(&self) -> bool {
        let snapshot = self.folder().join("snapshots").join(COMMIT);
        READ.iter().all(|name| {
            fs::read(snapshot.join(name)).is_ok_and(|found| found == self.hub.state().files[*name])
        })
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_connection_that_breaks_is_gone_on_with_and_no_byte_comes_twice() {
    let house = House::new(|state| state.cuts = [1_000_000, 500_000, 1, 0, 2_000_000].into());
    let pulled = house.pull();
    assert!(house.is_whole());
    let heard = house.hub.heard();
    let of = |name: &str| heard.iter().filter(|h| h.path.contains(name)).map(|h| h.from).collect::<Vec<_>>();
    assert_eq!(of(WEIGHTS), [0, 1_000_000, 1_500_000, 1_500_001, 1_500_001, 3_500_001]);
    // Each other file is asked for once, and what no conversion reads not at all.
    assert_eq!(heard.len(), 1 + 5 + 6, "{heard:?}");
    let size: usize = READ.iter().map(|name| house.hub.state().files[*name].len()).sum();
    assert_eq!((&pulled["downloaded"], &pulled["commit"]), (&json!(size), &json!(COMMIT)));
    assert_eq!(pulled["files"].as_array().unwrap().len(), READ.len());

    // The layout is the one that other programs read.
    let folder = house.folder();
    assert_eq!(Path::new(pulled["path"].as_str().unwrap()), folder.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    let mut sums: Vec<String> = READ.iter().map(|name| sum(&house.hub.state().files[*name])).collect();
    sums.sort();
    assert_eq!(names(&folder.join("blobs")), sums);
    #[cfg(unix)]
    {
        let target = fs::read_link(folder.join("snapshots").join(COMMIT).join(WEIGHTS)).unwrap();
        assert_eq!(target, Path::new("../../blobs").join(sum(&house.weights())));
    }

    // What is there is not asked for again; offline nothing is asked for at all.
    assert_eq!(house.pull()["downloaded"], 0);
    assert_eq!(house.hub.heard().len(), 1);
    let offline = |arguments: &[&str]| {
        let mut command = house.command(arguments);
        Finished::wait(piped(command.env("HF_HUB_OFFLINE", "1")).spawn().unwrap()).unwrap()
    };
    let folder = pulled["path"].as_str().unwrap();
    assert_eq!(offline(&["pull", ID]).stdout.trim_end(), folder);
    assert_eq!(offline(&["pull", &format!("{ID}@{COMMIT}")]).stdout.trim_end(), folder);
    for unknown in ["org/other", "org/tiny@v2"] {
        assert_eq!(offline(&["pull", unknown]).refusal().unwrap(), ("hub-offline".into(), 5));
    }
    assert!(house.hub.heard().is_empty());
    // So it is where the hub is not reached, with a word about it.
    house.hub.state().refuses = Some((503, "", ""));
    let finished = house.run(&["pull", ID]);
    assert!(
        finished.stdout.trim_end() == folder && finished.stderr.contains("what is in the cache"),
        "{finished:?}"
    );
}

#[test]
fn what_is_not_what_the_list_says_is_refused_and_not_kept() {
    for name in [WEIGHTS, "tokenizer.json"] {
        let house = House::new(|state| state.wrong = Some(name.to_owned()));
        assert_eq!(house.refused(&["pull", ID]), ("download-corrupt".into(), 2), "{name}");
        let bad = sum(&house.hub.state().files[name]);
        assert!(!names(&house.folder().join("blobs")).iter().any(|file| file.starts_with(&bad)));
        assert!(!house.folder().join("snapshots").join(COMMIT).join(name).exists());
        assert!(!house.folder().join("refs/main").exists());
        house.hub.state().wrong = None;
        house.pull();
        assert!(house.is_whole());
    }
}

#[test]
fn what_an_earlier_run_left_is_not_believed_more_than_its_sum() {
    let house = House::new(|_| ());
    fs::create_dir_all(house.folder().join("blobs")).unwrap();
    fs::write(house.incomplete(), vec![0; 1_000_000]).unwrap();
    house.pull();
    assert!(house.is_whole());
    assert_eq!(house.starts(), [1_000_000, 0]);
}

#[test]
fn a_server_without_ranges_is_asked_for_the_whole_again() {
    let house = House::new(|state| {
        state.no_ranges = true;
        state.cuts = [1_000_000].into();
    });
    house.pull();
    assert!(house.is_whole());
    assert_eq!(house.starts(), [0, 1_000_000]);
}

#[test]
fn a_connection_that_always_breaks_is_given_up_and_what_came_stays() {
    let house = House::new(|state| state.cuts = [1_000_000, 0, 0, 0, 0, 0].into());
    let finished = house.run(&["pull", ID]);
    assert_eq!(finished.refusal().unwrap(), ("download-failed".into(), 5));
    assert!(finished.stderr.contains("1000000 bytes"), "{}", finished.stderr);
    assert_eq!(fs::metadata(house.incomplete()).unwrap().len(), 1_000_000);
    house.hub.heard();
    house.hub.state().cuts.clear();
    house.pull();
    assert_eq!((house.starts(), house.is_whole()), (vec![1_000_000], true));
}

/// A run that waits in the middle of the weights.
#[cfg(unix)]
fn in_the_middle(house: &House) -> std::process::Child {
    use std::io::{BufRead as _, BufReader};
    let mut child = piped(&mut house.command(&["pull", ID])).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("60 %") {
        line.clear();
        assert!(errors.read_line(&mut line).unwrap() > 0, "it ended before it was there");
    }
    child.stderr = Some(errors.into_inner());
    child
}

#[cfg(unix)]
#[test]
fn a_run_that_is_killed_or_interrupted_is_gone_on_with() {
    use pajamas_journeys::product::interrupt;
    for kill in [true, false] {
        let house = House::new(|state| state.holds = Some(3_000_000));
        let mut child = in_the_middle(&house);
        match kill {
            true => child.kill().unwrap(),
            false => interrupt(&child).unwrap(),
        }
        let finished = Finished::wait(child).unwrap();
        if !kill {
            assert_eq!(finished.refusal().unwrap(), ("cancelled".into(), 130));
        }
        let there = fs::metadata(house.incomplete()).unwrap().len() as usize;
        assert!(there > 2_000_000 && !house.folder().join("refs").exists(), "{there}");
        house.hub.heard();
        house.hub.state().holds = None;
        house.pull();
        assert_eq!((house.starts(), house.is_whole()), (vec![there], true));
    }
}

#[test]
fn the_token_is_shown_to_the_hub_and_to_nobody_else() {
    let elsewhere = Hub::start(State { files: chat_model().unwrap(), ..State::default() }).unwrap();
    elsewhere.state().cuts = [1_000_000].into();
    for no_sums in [false, true] {
        let house = House::new(|state| {
            state.away = Some(elsewhere.authority());
            state.token = Some("hf_secret".to_owned());
            state.no_sums = no_sums;
        });
        let mut command = house.command(&["-vv", "pull", ID]);
        let finished = Finished::wait(piped(command.env("HF_TOKEN", "hf_secret")).spawn().unwrap()).unwrap();
        assert!(finished.status.success() && house.is_whole(), "{}", finished.stderr);
        assert!(!format!("{finished:?}").contains("hf_secret"));
        let (at_home, away) = (house.hub.heard(), elsewhere.heard());
        assert!(
            at_home.iter().all(|h| h.authorization.as_deref() == Some("Bearer hf_secret")),
            "{at_home:?}"
        );
        assert!(!away.is_empty() && away.iter().all(|h| h.authorization.is_none()), "{away:?}");
        assert!(away.iter().all(|h| h.method == "GET"), "only the hub names files: {away:?}");
        let heads = at_home.iter().filter(|h| h.method == "HEAD").count();
        assert_eq!(heads, if no_sums { READ.len() } else { 0 });
        if !no_sums {
            assert_eq!(away.iter().map(|h| h.from).collect::<Vec<_>>(), [0, 1_000_000]);
        }
        // Nobody is shown a token that a hub repeats.
        house.hub.state().refuses = Some((403, "", "the token hf_secret may not"));
        let mut command = house.command(&["pull", ID]);
        let refused = Finished::wait(piped(command.env("HF_TOKEN", "hf_secret")).spawn().unwrap()).unwrap();
        assert_eq!(refused.refusal().unwrap(), ("repository-gated".into(), 6));
        assert!(
            refused.stderr.contains("may not") && !refused.stderr.contains("hf_secret"),
            "{}",
            refused.stderr
        );
    }
}

#[test]
fn what_a_hub_refuses_is_said_with_what_to_do() {
    let house = House::new(|_| ());
    let refuse = |refusal| {
        house.hub.state().refuses = Some(refusal);
        let finished = house.run(&["pull", ID]);
        let help = finished.stderr.contains("HF_TOKEN");
        (finished.refusal().unwrap(), help)
    };
    assert_eq!(refuse((401, "RepoNotFound", "")), (("repository-not-found".into(), 3), true));
    assert_eq!(refuse((404, "", "")), (("repository-not-found".into(), 3), true));
    assert_eq!(refuse((403, "GatedRepo", "")), (("repository-gated".into(), 6), true));
    assert_eq!(refuse((401, "", "")), (("repository-gated".into(), 6), true));
    assert_eq!(refuse((404, "RevisionNotFound", "")), (("revision-not-found".into(), 3), false));
    assert_eq!(refuse((500, "", "")), (("hub-unavailable".into(), 5), false));
    // A word that is neither a path nor a repository is told to be neither.
    house.hub.state().refuses = Some((404, "RepoNotFound", ""));
    let finished = house.run(&["info", "models/chat-hf"]);
    assert_eq!(finished.refusal().unwrap().0, "repository-not-found");
    assert!(
        finished.stderr.contains("no file or folder") && finished.stderr.contains("hub"),
        "{}",
        finished.stderr
    );
    let finished = house.run(&["info", "nothing"]);
    assert_eq!(finished.refusal().unwrap().0, "model-not-found");
    assert!(finished.stderr.contains("org/name"), "{}", finished.stderr);
    assert_eq!(house.refused(&["pull", "../x"]).0, "repository-invalid");
    // What is there goes before any hub.
    house.hub.heard();
    assert!(house.run(&["info", "models/chat/hf"]).status.success() && house.hub.heard().is_empty());
}

#[test]
fn lists_that_cannot_be_are_refused_before_anything_is_written() {
    let listed = |entry: Value| House::new(|state| state.listed = vec![entry]);
    for path in ["../../../outside", "/tmp/outside", "a\\..\\..\\outside", "x/../../outside"] {
        let house = listed(json!({ "rfilename": path, "size": 1, "blobId": "0".repeat(40) }));
        assert_eq!(house.refused(&["pull", ID]), ("repository-invalid".into(), 2), "{path}");
        assert!(names(house.home.path()).is_empty(), "{path}");
    }
    let lfs = json!({ "sha256": "0".repeat(64), "size": 1u64 << 60 });
    let house = listed(json!({ "rfilename": "vocab.txt", "size": 1u64 << 60, "lfs": lfs }));
    if cfg!(unix) {
        assert_eq!(house.refused(&["pull", ID]), ("disk-full".into(), 5));
        assert!(names(&house.folder().join("blobs")).is_empty());
    }
    let house = House::new(|state| {
        state.files.retain(|path, _| !path.ends_with(".safetensors"));
    });
    assert_eq!(house.refused(&["pull", ID]), ("repository-unusable".into(), 2));
}

#[test]
fn a_repository_becomes_the_same_file_as_a_folder_of_its_name() {
    let house = House::new(|_| ());
    let local = house.home.path().join("tiny");
    fs::create_dir(&local).unwrap();
    for name in READ {
        fs::write(local.join(name), &house.hub.state().files[name]).unwrap();
    }
    // What cannot be made is not worth a download.
    let output = house.home.path().join("out");
    let to = output.to_str().unwrap();
    assert_eq!(house.refused(&["convert", ID, "-p", "Q8_1_X", "-o", to]).0, "invalid-option");
    assert!(house.hub.heard().is_empty());

    let made = house.run(&["convert", ID, "-p", "Q8_0", "-o", to, "--json"]).json().unwrap();
    let file = made[0]["files"][0]["path"].as_str().unwrap();
    assert_eq!(file, "gguf/Q8_0/tiny-Q8_0.gguf");
    let beside = house.home.path().join("beside");
    run(["convert", local.to_str().unwrap(), "-p", "Q8_0", "-o", beside.to_str().unwrap()]).unwrap();
    assert_eq!(fs::read(output.join(file)).unwrap(), fs::read(beside.join(file)).unwrap());

    // What it was made of is written down, and is how it is known again.
    let read = |path: PathBuf| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    let manifest = read(output.join("manifest.json"));
    assert_eq!(manifest["formats"][0]["repository"], json!({ "id": ID, "commit": COMMIT }));
    let record = read(output.join("gguf/Q8_0/metadata.json"));
    assert_eq!((&record["source"], &record["repository"]["commit"]), (&json!("tiny"), &json!(COMMIT)));
    let again =
        house.run(&["convert", &format!("hf:{ID}@main"), "-p", "Q8_0", "-o", to, "--json"]).json().unwrap();
    assert_eq!(again[0]["skipped"], true);
    let info = house.run(&["info", "--json", ID]).json().unwrap();
    assert_eq!((&info[0]["name"], &info[0]["architecture"]), (&json!("tiny"), &json!("llama")));

    // A file of many models may name repositories, too; one that there is not is refused, and the others are made.
    let batch = house.home.path().join("batch.toml");
    let entry = |id: &str, to: &str| {
        format!("[[models]]\nmodel = \"{id}\"\nprecision = \"Q8_0\"\noutput = \"{to}\"\n")
    };
    fs::write(&batch, entry("org/none@v1", "none") + &entry(ID, "batch")).unwrap();
    let ended = house.run(&["batch", "--json", batch.to_str().unwrap()]);
    assert_eq!(ended.refusal().unwrap().0, "batch-failed");
    let told = ended.lines().unwrap();
    assert_eq!(told[0]["refused"]["code"], "repository-not-found", "{told:?}");
    assert_eq!(told[1]["made"][0]["files"][0]["sha256"], made[0]["files"][0]["sha256"]);
}

#[test]
fn one_file_of_a_repository_of_gguf_files_is_fetched() {
    let model = fs::read(repository().join("models/chat/model.gguf")).unwrap();
    let house = House::new(|state| {
        let names = ["tiny-F16.gguf", "tiny-Q4_K_M.gguf", "tiny-Q4_K_S.gguf"];
        state.files = names.map(|name| (name.to_owned(), model.clone())).into();
        state.files.insert("README.md".to_owned(), b"x".to_vec());
    });
    assert_eq!(house.refused(&["pull", ID]), ("repository-unusable".into(), 2));
    assert_eq!(house.refused(&["pull", "org/tiny:Q5_K_M"]), ("repository-file-not-found".into(), 3));
    house.hub.heard();
    let pulled = house.run(&["pull", "org/tiny:q4_k_m"]);
    assert!(pulled.stdout.trim_end().ends_with("tiny-Q4_K_M.gguf"), "{pulled:?}");
    assert_eq!(house.hub.heard().len(), 2);
    let output = house.home.path().join("out");
    let arguments = ["convert", "org/tiny:f16", "-p", "F16", "--allow-requantize", "--json", "-o"];
    let made = house.run(&[&arguments[..], &[output.to_str().unwrap()]].concat()).json().unwrap();
    assert!(made[0]["files"][0]["path"].as_str().unwrap().starts_with("gguf/F16/tiny-F16"), "{made:?}");
    let manifest: Value = serde_json::from_slice(&fs::read(output.join("manifest.json")).unwrap()).unwrap();
    let wanted = json!({ "id": ID, "commit": COMMIT, "file": "tiny-F16.gguf" });
    assert_eq!(manifest["formats"][0]["repository"], wanted);
}

#[test]
fn two_runs_at_once_fetch_everything_once() {
    let house = House::new(|state| state.cuts = [1_000_000; 2].into());
    let runs: Vec<_> = (0..2).map(|_| piped(&mut house.command(&["pull", ID])).spawn().unwrap()).collect();
    for child in runs {
        let finished = Finished::wait(child).unwrap();
        assert!(finished.status.success(), "{}", finished.stderr);
    }
    assert!(house.is_whole());
    assert_eq!(house.starts(), [0, 1_000_000, 2_000_000]);
}

/// The cache is read by the program whose layout it has.
#[test]
fn huggingface_hub_finds_what_was_fetched() {
    let python = target().unwrap().with_file_name("peers").join("bin/python");
    let there = Command::new(&python).args(["-c", "import huggingface_hub"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: huggingface_hub is not there; `cargo xtask peers` installs it");
        return;
    }
    let house = House::new(|_| ());
    let path = house.pull()["path"].take();
    let program = "import sys; from huggingface_hub import snapshot_download, scan_cache_dir\n\
         print(snapshot_download(sys.argv[1], local_files_only=True))\n\
         found = scan_cache_dir()\n\
         print([str(w) for w in found.warnings], sorted(f.file_name for r in found.repos for v in r.revisions for f in v.files))";
    let output = Command::new(python)
        .args(["-c", program, ID])
        .env("HF_HOME", house.home.path())
        .env_remove("HF_HUB_CACHE")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let wanted: Vec<String> = READ.iter().map(|name| format!("'{name}'")).collect();
    let wanted = format!("{}\n[] [{}]\n", path.as_str().unwrap(), wanted.join(", "));
    assert_eq!(said, wanted, "{}", String::from_utf8_lossy(&output.stderr));
}
