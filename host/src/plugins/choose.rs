//! Which backend runs a format here, and why not the others.

use pajamas_plugin_api::DeviceInfo;
use serde::Serialize;

use super::{ActiveBackend, Plugins};
use crate::config::{BackendChoice, DeviceChoice};
use crate::error::{Error, Result};

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
    /// The best backend for `format` among those that the configuration allows: highest score first, then the
    /// order of the search.
    ///
    /// # Errors
    /// `backend-unavailable` with each candidate's reason: there is no silent second choice.
    pub fn choose(&self, format: &str, wanted: &BackendChoice, device: &DeviceChoice) -> Result<Choice<'_>> {
        let mut rejected = Vec::new();
        let mut candidates = Vec::new();
        for backend in self.backends().iter().filter(|b| b.info.formats.iter().any(|f| f == format)) {
            match fitness(backend, wanted, device) {
                Ok(device) => candidates.push((backend, device)),
                Err(reason) => rejected.push(Rejection { backend: backend.full_id(), reason }),
            }
        }
        // `max_by_key` keeps the last of equals: reversed, the first found wins.
        let best = candidates.iter().rev().max_by_key(|(b, _)| b.probe.score).copied();
        let Some((backend, device)) = best else {
            return Err(self.unavailable(format, wanted, device, &rejected));
        };
        rejected.extend(candidates.into_iter().filter(|(b, _)| !std::ptr::eq(*b, backend)).map(|(b, _)| {
            Rejection {
                backend: b.full_id(),
                reason: format!("scores {} against {}", b.probe.score, backend.probe.score),
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
        Backend, BackendInfo, Cancel, LoadRequest, Memory, PluginError, Probe, ProgressSink, Session,
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
    }

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
        let choice = plugins.choose("onnx", &BackendChoice::Auto, &DeviceChoice::Auto).unwrap();
        assert_eq!(choice.backend.info.id, "onnxruntime");
        assert_eq!(choice.rejected[0].reason, "scores 100 against 200");
    }

    #[test]
    fn the_configuration_is_obeyed_and_nothing_is_taken_in_silence() {
        let plugins = plugins(&[("onnx", "rten", 100, &["cpu"]), ("onnx", "onnxruntime", 0, &[])]);
        let wanted: BackendChoice = "onnxruntime".parse().unwrap();
        let error = plugins.choose("onnx", &wanted, &DeviceChoice::Auto).err().unwrap();
        assert_eq!(error.code(), "backend-unavailable");
        assert!(error.message().contains("onnx/onnxruntime: no library"), "{error}");
        let cuda: DeviceChoice = "cuda:0".parse().unwrap();
        let error = plugins.choose("onnx", &BackendChoice::Auto, &cuda).err().unwrap();
        assert!(error.message().contains("no device `cuda:0`, only cpu"), "{error}");
        assert!(plugins.choose("gguf", &BackendChoice::Auto, &DeviceChoice::Auto).is_err());
    }
}
