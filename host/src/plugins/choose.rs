//! Which backend runs a format here, and why not the others.

use std::path::Path;

use pajamas_plugin_api::{DeviceInfo, LoadRequest};
use serde::Serialize;

use super::{ActiveBackend, Plugins};
use crate::config::{BackendChoice, DeviceChoice, Options};
use crate::error::{Error, Result};

/// A model that wants a backend.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its main file.
    pub file: &'a Path,
    /// Its format, for example `gguf`.
    pub format: &'a str,
    /// Which backend may run it.
    pub backend: &'a BackendChoice,
    /// Where it may run.
    pub device: &'a DeviceChoice,
    /// The backend's options.
    pub options: &'a Options,
}

impl Asked<'_> {
    /// As a backend is told it, for a device of its own or its preferred one.
    pub fn request(&self, device: Option<&DeviceInfo>) -> LoadRequest {
        LoadRequest {
            path: self.file.to_path_buf(),
            format: self.format.to_owned(),
            device: device.map_or_else(String::new, |device| device.id.clone()),
            options: self.options.clone().into(),
        }
    }
}

/// A backend that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// `plugin/backend`.
    pub backend: String,
    /// Why not.
    pub reason: String,
}

/// The backend that runs a model, where, and why not the others.
pub struct Choice<'p> {
    /// The backend.
    pub backend: &'p ActiveBackend,
    /// The device it runs on; `None` when the backend names none.
    pub device: Option<&'p DeviceInfo>,
    /// The others of this format.
    pub rejected: Vec<Rejection>,
}

impl Plugins {
    /// The best backend for a model among those that the configuration allows: highest score first, then the
    /// order of the search. The score is the one for this machine, or for this model where a backend has one.
    ///
    /// # Errors
    /// `backend-unavailable` with each candidate's reason: there is no silent second choice.
    pub fn choose(&self, asked: Asked<'_>) -> Result<Choice<'_>> {
        let Asked { format, backend: wanted, device, .. } = asked;
        let mut rejected = Vec::new();
        let mut candidates = Vec::new();
        let all = self.backends.iter().chain(&self.own);
        for backend in all.filter(|b| b.info.formats.iter().any(|f| f == format)) {
            match fitness(backend, wanted, device) {
                Ok(device) => candidates.push((backend, device)),
                Err(reason) => rejected.push(Rejection { backend: backend.full_id(), reason }),
            }
        }
        let compared = candidates.len() > 1;
        let judge = |(backend, device): (&'_ ActiveBackend, Option<&'_ DeviceInfo>)| {
            let fit = compared.then(|| self.fitness.of(backend, &asked.request(device))).flatten();
            fit.map_or((backend.probe.score, None), |fit| (fit.score, Some(fit)))
        };
        let scores: Vec<_> = candidates.iter().copied().map(judge).collect();
        // `max_by_key` keeps the last of equals: reversed, the first found wins.
        let best = (0..candidates.len()).rev().max_by_key(|place| scores[*place].0);
        let Some(best) = best else {
            return Err(self.unavailable(format, wanted, device, &rejected));
        };
        let (backend, device) = candidates[best];
        let others = candidates.iter().zip(&scores).enumerate().filter(|(place, _)| *place != best);
        rejected.extend(others.map(|(_, ((other, _), (score, fit)))| {
            let why = fit.as_ref().map_or_else(String::new, |fit| format!(": {}", fit.reason));
            Rejection {
                backend: other.full_id(),
                reason: format!("scores {score} against {}{why}", scores[best].0),
            }
        }));
        Ok(Choice { backend, device, rejected })
    }

    fn unavailable(
        &self,
        format: &str,
        wanted: &BackendChoice,
        device: &DeviceChoice,
        why: &[Rejection],
    ) -> Error {
        let asked = match (wanted, device) {
            (BackendChoice::Auto, DeviceChoice::Auto) => String::new(),
            (wanted, DeviceChoice::Auto) => format!(" (backend = {wanted})"),
            (wanted, device) => format!(" (backend = {wanted}, device = {device})"),
        };
        let reasons = match why {
            [] => "no plugin that was found runs this format".to_owned(),
            list => {
                list.iter().map(|r| format!("{}: {}", r.backend, r.reason)).collect::<Vec<_>>().join("; ")
            }
        };
        Error::new("backend-unavailable", format!("no backend here runs `{format}` models{asked}: {reasons}"))
            .help("`pajamas plugins list` shows what was searched, found and refused")
    }
}

/// The device to use when the backend may take the model, else why it may not.
fn fitness<'p>(
    backend: &'p ActiveBackend,
    wanted: &BackendChoice,
    device: &DeviceChoice,
) -> Result<Option<&'p DeviceInfo>, String> {
    if !wanted.allows(&backend.plugin, &backend.info.id) {
        return Err(format!("the configuration wants {wanted}"));
    }
    if backend.probe.score == 0 {
        return Err(backend.probe.reason.clone());
    }
    match device {
        DeviceChoice::Auto => Ok(backend.probe.devices.first()),
        chosen => {
            let id = chosen.as_request();
            let found = backend.probe.devices.iter().find(|d| d.id == id);
            found.map(Some).ok_or_else(|| {
                let has: Vec<&str> = backend.probe.devices.iter().map(|d| d.id.as_str()).collect();
                format!("it has no device `{id}`, only {}", has.join(", "))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pajamas_plugin_api::{
        Backend, BackendInfo, Cancel, EventSink, Extension, Memory, NamedTensor, PluginError, Probe,
        ProgressSink, Session, TensorSink,
    };

    use super::*;
    use crate::config::Isolation;

    struct Fake;

    impl Backend for Fake {
        fn describe(&self) -> BackendInfo {
            unreachable!("the choice looks only at what was said at start")
        }
        fn probe(&self) -> Probe {
            unreachable!("likewise")
        }
        fn estimate(&self, _: &LoadRequest) -> Result<Vec<Memory>, PluginError> {
            unreachable!("likewise")
        }
        fn load(
            &self,
            _: &LoadRequest,
            _: &mut dyn ProgressSink,
            _: &Cancel,
        ) -> Result<Box<dyn Session>, PluginError> {
            unreachable!("likewise")
        }
        fn extension(&self, name: &str) -> Option<Box<dyn Extension>> {
            assert_eq!(name, "pajamas.fitness/1");
            Some(Box::new(Judge))
        }
    }

    /// Scores 90 for a model named `slow.onnx`, breaks on `broken.onnx`, and has nothing to say of others.
    struct Judge;

    impl Extension for Judge {
        fn call(
            &self,
            input: &[u8],
            _: &[NamedTensor<'_>],
            _: &mut dyn EventSink,
            _: &mut dyn TensorSink,
            _: &Cancel,
        ) -> Result<Vec<u8>, PluginError> {
            let request: LoadRequest = serde_json::from_slice(input).unwrap();
            match request.path.to_str() {
                Some("slow.onnx") if request.device == "cpu" => {
                    Ok(br#"{"score":90,"reason":"it has no kernel"}"#.to_vec())
                }
                Some("broken.onnx") => Err(PluginError::new("model-invalid", "no model")),
                _ => Ok(b"null".to_vec()),
            }
        }
    }

    fn choose<'p>(
        plugins: &'p Plugins,
        file: &str,
        backend: &BackendChoice,
        device: &DeviceChoice,
    ) -> Result<Choice<'p>> {
        let (file, options) = (Path::new(file), &Options::default());
        plugins.choose(Asked { file, format: "onnx", backend, device, options })
    }

    const AUTO: (BackendChoice, DeviceChoice) = (BackendChoice::Auto, DeviceChoice::Auto);

    fn plugins(entries: &[(&str, &str, u32, &[&str])]) -> Plugins {
        let backends = entries.iter().map(|(plugin, id, score, devices)| ActiveBackend {
            plugin: (*plugin).into(),
            info: BackendInfo {
                id: (*id).into(),
                description: String::new(),
                formats: vec!["onnx".into()],
                precisions: Vec::new(),
                device_kinds: Vec::new(),
                capabilities: Vec::new(),
                options_schema: serde_json::Value::Null,
            },
            probe: Probe {
                score: *score,
                reason: "no library".into(),
                devices: devices
                    .iter()
                    .map(|d| DeviceInfo {
                        id: (*d).into(),
                        name: String::new(),
                        memory_total: 0,
                        memory_free: 0,
                    })
                    .collect(),
            },
            backend: Arc::new(Fake),
            worker: None,
            isolation: Isolation::None,
        });
        Plugins { backends: backends.collect(), ..Plugins::default() }
    }

    #[test]
    fn the_highest_score_wins_and_the_others_say_why_not() {
        let plugins = plugins(&[("onnx", "rten", 100, &["cpu"]), ("onnx", "onnxruntime", 200, &["cpu"])]);
        for file in ["model.onnx", "broken.onnx"] {
            let choice = choose(&plugins, file, &AUTO.0, &AUTO.1).unwrap();
            assert_eq!(choice.backend.info.id, "onnxruntime");
            assert_eq!(choice.rejected[0].reason, "scores 100 against 200");
        }
    }

    #[test]
    fn what_a_backend_says_of_the_model_counts_more_than_what_it_says_of_the_machine() {
        let plugins = plugins(&[("onnx", "rten", 100, &[]), ("onnx", "onnxruntime", 200, &["cpu"])]);
        for _ in 0..2 {
            let choice = choose(&plugins, "slow.onnx", &AUTO.0, &AUTO.1).unwrap();
            assert_eq!(choice.backend.info.id, "rten");
            assert_eq!(choice.rejected[0].reason, "scores 90 against 100: it has no kernel");
        }
        let wanted: BackendChoice = "onnxruntime".parse().unwrap();
        let choice = choose(&plugins, "slow.onnx", &wanted, &AUTO.1).unwrap();
        assert_eq!(choice.backend.info.id, "onnxruntime");
    }

    #[test]
    fn the_configuration_is_obeyed_and_nothing_is_taken_in_silence() {
        let plugins = plugins(&[("onnx", "rten", 100, &["cpu"]), ("onnx", "onnxruntime", 0, &[])]);
        let wanted: BackendChoice = "onnxruntime".parse().unwrap();
        let error = choose(&plugins, "model.onnx", &wanted, &AUTO.1).err().unwrap();
        assert_eq!(error.code(), "backend-unavailable");
        assert!(error.message().contains("onnx/onnxruntime: no library"), "{error}");
        let cuda: DeviceChoice = "cuda:0".parse().unwrap();
        let error = choose(&plugins, "model.onnx", &AUTO.0, &cuda).err().unwrap();
        assert!(error.message().contains("no device `cuda:0`, only cpu"), "{error}");
    }
}
