//! What to load a model with: what is known of the machine, the model and its backend, put together.

use std::collections::BTreeMap;
use std::path::Path;

use pajamas_plugin_api::LoadRequest;

use crate::artifact::{self, Reference};
use crate::config::{Config, DeviceChoice};
use crate::error::{Error, Result};
use crate::hardware::{
    Answer, Gpu, Hardware, ModelFacts, Place, Profiles, Provider, Question, Recommendation, RecordedMachine,
    Shortage, recommend,
};
use crate::models::{Spec, by_device};
use crate::plugins::{ActiveBackend, Plugins};
use crate::quantize;

/// How often a backend is asked, at most: each time it needs more than was thought, less is recommended.
const ROUNDS: usize = 8;

/// What to load a model with, an id of the configuration or a path: on this machine, where its backend is asked how much memory
/// that takes; or on one that was recorded, for which that is computed.
///
/// # Errors
/// `out-of-memory` when it fits nowhere, with how much is missing and what would fit; those of finding the model, of reading the
/// record, and of its backend; `unsupported` for a format that is not known on another machine.
pub fn recommended(config: &Config, model: &str, recorded: Option<&Path>) -> Result<Recommendation> {
    let plugins = Plugins::load(&config.plugins);
    let spec = match artifact::resolve(model, config)? {
        Reference::Configured(entry) => Spec::of_model(entry)?,
        Reference::Path(source) => Spec::of_path(model, &source)?,
    };
    let facts = facts(&spec, &plugins)?;
    let profiles = Profiles::built_in()?;
    let ask = |machine: &Hardware, places: &[Place], more: &BTreeMap<String, u64>| {
        let memory = &config.memory;
        recommend(&Question { machine, model: &facts, profiles: &profiles, memory, places, more })
    };
    if let Some(file) = recorded {
        let machine = RecordedMachine::new(file).hardware()?;
        if !["gguf", "onnx"].contains(&spec.format.as_str()) {
            let message = format!("{model}: what other machines do with {} models is not known", spec.format);
            return Err(
                Error::new("unsupported", message).help("ask on the machine itself, without --machine")
            );
        }
        let places = Place::assumed(&machine, &profiles, &spec.format);
        return settled(ask(&machine, &places, &BTreeMap::new()), model);
    }
    let mut machine = Hardware::detect();
    plugins.add_devices(&mut machine);
    let choice = plugins.choose(spec.asked())?;
    let places = places(choice.backend, &spec.device, &machine);
    let mut more: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let mut found = settled(ask(&machine, &places, &more), model)?;
        let request = LoadRequest {
            path: spec.file.clone(),
            format: spec.format.clone(),
            device: found.device.clone(),
            options: found.options().into(),
        };
        let told = by_device(&choice.backend.runner(spec.isolation)?.estimate(&request)?);
        let mut fits = true;
        for room in &found.memory {
            let needs = told.get(&room.need.device).copied().unwrap_or(0);
            fits &= needs <= room.room;
            let beyond = needs.saturating_sub(room.need.total());
            *more.entry(room.need.device.clone()).or_default() += beyond;
        }
        if fits {
            let told: Vec<String> = told
                .iter()
                .map(|(device, bytes)| format!("{} MiB on {device}", bytes.div_ceil(1 << 20)))
                .collect();
            found.reasons.push(format!("memory: {} itself estimates {}", found.backend, told.join(", ")));
            return Ok(found);
        }
    }
    Err(Error::new(
        "out-of-memory",
        format!("`{model}`: its backend needs more memory than there is, each time it is asked"),
    )
    .help("set `context_length` by hand, and see what `pajamas bench` says"))
}

fn settled(answer: Answer, model: &str) -> Result<Recommendation> {
    match answer {
        Answer::Fits(recommendation) => Ok(*recommendation),
        Answer::Nowhere(shortage) => Err(refusal(&shortage, model)),
    }
}

fn refusal(shortage: &Shortage, model: &str) -> Error {
    Error::new("out-of-memory", format!("`{model}` fits nowhere here: {shortage}")).help(shortage.help())
}

/// What is known of a model: as much as a plugin describes of it.
fn facts(spec: &Spec, plugins: &Plugins) -> Result<ModelFacts> {
    let bytes = std::fs::metadata(&spec.file).map_err(|error| Error::io(&spec.file, &error))?.len();
    let path = std::path::absolute(&spec.file).unwrap_or_else(|_| spec.file.clone());
    let path = path.to_string_lossy();
    let name = spec.file.file_stem().map(|name| name.to_string_lossy()).unwrap_or_default();
    let mut facts = ModelFacts::of_size(&name, &path, &spec.format, bytes);
    facts.task = spec.task;
    match quantize::describe(&spec.file, plugins) {
        Ok(description) => Ok(facts.described(&description)),
        // Without a plugin that describes the format its size has to do.
        Err(error) if error.code() == "quantizer-not-found" => Ok(facts),
        Err(error) => Err(error),
    }
}

/// The devices of a backend, or the one that is configured, with the GPUs that they are.
fn places(backend: &ActiveBackend, wanted: &DeviceChoice, machine: &Hardware) -> Vec<Place> {
    let devices = &backend.probe.devices;
    let allowed = |id: &str| *wanted == DeviceChoice::Auto || wanted.as_request() == id;
    let of = |place: usize, name: &str| {
        let earlier = devices[..place].iter().filter(|device| device.name == name).count();
        let named = |(_, gpu): &(usize, &Gpu)| gpu.name == name;
        let (index, _) = machine.gpus.devices.iter().enumerate().filter(named).nth(earlier)?;
        Some(index)
    };
    let all = devices.iter().enumerate().filter(|(_, device)| allowed(&device.id));
    all.map(|(place, device)| Place {
        backend: backend.info.id.clone(),
        device: device.id.clone(),
        gpu: if device.id == "cpu" { None } else { of(place, &device.name) },
    })
    .collect()
}
