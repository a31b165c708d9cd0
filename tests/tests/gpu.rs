//! A graphics processor by ggml's library for Vulkan, laid beside the gguf plugin as the integrators' page says. Mesa's driver that
//! computes on the processor is as good as a card here: `cargo xtask gpu vulkan` builds the library, and where that was not done
//! these tests are skipped.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::Path;

use pajamas_journeys::fixtures::{repository, target};
use pajamas_journeys::product::{Finished, House, Server, model_entry, pajamas, part, piped};
use pajamas_plugin_api::host::{MANIFEST_NAME, Manifest};
use serde_json::{Value, json};

/// ggml leaves out devices that are processors unless it is told which ones to take.
const TAKE_ALL: (&str, &str) = ("GGML_VK_VISIBLE_DEVICES", "0");
const LIBRARY: &str = "libggml-vulkan.so";

/// A house whose gguf plugin has the library, with the chat model on the GPU and on the processor; `None` where the library, or a
/// driver, is not there.
fn house(more: &str) -> Option<House> {
    let library = target().unwrap().with_file_name("gpu").join(LIBRARY);
    if !library.exists() {
        eprintln!("skipped: {} is not there; `cargo xtask gpu vulkan` builds it", library.display());
        return None;
    }
    let model = repository().join("models/chat/model.gguf");
    let entry = |id: &str, device: &str| {
        let rest = format!("task = \"chat\"\ndevice = \"{device}\"\noptions = {{ threads = 1 }}");
        model_entry(id, &model, &rest)
    };
    let house = House::new("").unwrap();
    let search = house.folder().join("plugins");
    let entries = entry("here", "cpu") + &entry("there", "vulkan:0");
    house.write(&format!("[plugins]\nsearch = ['{}']\n{more}\n{entries}", search.display())).unwrap();
    with_library(&search.join("gguf"), &library);
    let machine = run(&house, &["hardware", "--json"]).json().unwrap().remove(0);
    if device(&machine).is_none() {
        eprintln!("skipped: no driver for Vulkan: {}", machine["devices"]);
        return None;
    }
    Some(house)
}

/// The plugin as it ships, and the library as a further file that its manifest vouches for.
fn with_library(folder: &Path, library: &Path) {
    let program = pajamas().unwrap().get_program().to_owned();
    let shipped = Path::new(&program).with_file_name("plugins").join("gguf");
    fs::create_dir_all(folder.join("llama")).unwrap();
    let manifest = Manifest::read(&shipped.join(MANIFEST_NAME)).unwrap();
    let files = manifest.files.iter().map(|file| file.path.clone());
    for file in files.chain([manifest.library.clone()]) {
        fs::hard_link(shipped.join(&file), folder.join(&file))
            .or_else(|_| fs::copy(shipped.join(&file), folder.join(&file)).map(drop))
            .unwrap();
    }
    fs::copy(library, folder.join("llama").join(LIBRARY)).unwrap();
    let manifest = manifest.with_file(folder, &format!("llama/{LIBRARY}")).unwrap();
    fs::write(folder.join(MANIFEST_NAME), manifest.to_toml().unwrap()).unwrap();
}

fn run(house: &House, arguments: &[&str]) -> Finished {
    let mut command = pajamas().unwrap();
    command.arg("--config").arg(house.config()).args(arguments).env(TAKE_ALL.0, TAKE_ALL.1);
    Finished::wait(piped(&mut command).spawn().unwrap()).unwrap()
}

fn device(machine: &Value) -> Option<&Value> {
    machine["devices"]["known"].as_array()?.iter().find(|device| device["id"] == "vulkan:0")
}

#[test]
fn a_gpu_is_found_recommended_and_answers_as_the_processor_does() {
    let Some(house) = house("") else { return };
    let machine = run(&house, &["hardware", "--json"]).json().unwrap().remove(0);
    let found = device(&machine).unwrap();
    assert_eq!(found["backends"], json!(["gguf/gguf"]));
    let [total, free] = ["memory_total", "memory_free"].map(|key| found[key].as_u64().unwrap());
    // What is free not every driver says.
    assert!(total > 0 && free <= total, "{found}");

    let recommended = run(&house, &["hardware", "recommend", "there", "--json"]).json().unwrap().remove(0);
    assert_eq!((&recommended["backend"], &recommended["device"]), (&json!("gguf"), &json!("vulkan:0")));
    assert!(recommended["entry"].as_str().unwrap().contains("device = \"vulkan:0\""));

    let answers = ["here", "there"].map(|model| {
        let ask = ["generate", "--json", "--model", model, "--temperature", "0", "--max-tokens", "12"];
        let answer = run(&house, &[&ask[..], &["A llama is"]].concat()).json().unwrap().remove(0);
        assert_eq!(answer["usage"]["completion_tokens"], 12, "{answer}");
        answer["text"].clone()
    });
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn memory_of_a_gpu_is_counted_and_comes_back() {
    let Some(house) = house("") else { return };
    let server = Server::start_as(house, &[], &[TAKE_ALL]).unwrap();
    let ask = json!({"model": "there", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4});
    let answer = server.post_json("/v1/chat/completions", &ask).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(part(&answer, "device"), Some("vulkan:0"));

    let held = || {
        let state = server.get("/admin/models").unwrap().json().unwrap();
        let devices = state["devices"].as_array().unwrap().clone();
        devices.into_iter().find(|device| device["device"] == "vulkan:0").unwrap_or_else(|| panic!("{state}"))
    };
    let with = held();
    assert!(with["used"].as_u64() > Some(1 << 20), "{with}");
    assert!(with["total"].as_u64() > with["used"].as_u64(), "{with}");
    let unloaded = server.post_json("/admin/models/there/unload", &json!({})).unwrap();
    assert_eq!(unloaded.status, 200, "{}", unloaded.body);
    assert_eq!(held()["used"], 0);
}

#[test]
fn a_model_that_does_not_fit_a_gpu_is_refused_with_numbers() {
    let Some(house) = house("[memory]\ndevices.\"vulkan:0\" = { limit = \"1MB\" }\n") else { return };
    let refused = run(&house, &["generate", "--model", "there", "hi"]);
    assert_eq!(refused.refusal().unwrap().0, "out-of-memory");
    assert!(refused.stderr.contains("vulkan:0"), "{}", refused.stderr);
}
