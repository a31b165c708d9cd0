//! A backend as we recommend to write one: options with a schema, progress and cancel while loading, honest
//! estimates, log lines and settings, and errors that say how to fix them.
//!
//! Its models are bigram tables, files of the format `bigram`: one line per rule, `WORD NEXT`, which says that
//! NEXT follows WORD. Generation walks the table from the last word of the prompt.
//!
//! - `options`: what an operator may set per model, and per plugin.
//! - `model`: the file, parsed with progress, and what it weighs.
//! - `session`: generation and tokens over a loaded model.

mod model;
mod options;
mod session;

use pajamas_plugin_api::{
    Backend, BackendInfo, Cancel, DeviceInfo, HostContext, Level, LoadRequest, Memory, Plugin, PluginError,
    PluginInfo, Probe, ProgressSink, Result, Session, capability, codes, export_plugin,
};

use model::Bigrams;
use options::{Options, Settings};
use session::BigramSession;

struct Bigram {
    host: HostContext,
    settings: Settings,
}

impl Bigram {
    /// Reads options and model. Everything that can be refused is refused here, for `estimate` and `load` alike.
    fn open(
        &self,
        request: &LoadRequest,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<(Bigrams, Options)> {
        cancel.check()?;
        request.check(&self.describe(), &self.probe())?;
        let options = Options::read(&request.options)?;
        let model = Bigrams::read(&request.path, self.settings.max_rules, progress, cancel)?;
        Ok((model, options))
    }
}

impl Backend for Bigram {
    fn describe(&self) -> BackendInfo {
        BackendInfo {
            id: "bigram".into(),
            description: "Continues text with the word that a table says comes next".into(),
            formats: vec!["bigram".into()],
            precisions: vec!["text".into()],
            device_kinds: vec!["cpu".into()],
            capabilities: vec![capability::GENERATE.into(), capability::TOKENIZE.into()],
            options_schema: Options::schema(),
        }
    }

    fn probe(&self) -> Probe {
        let cpu = DeviceInfo { id: "cpu".into(), name: "CPU".into(), memory_total: 0, memory_free: 0 };
        Probe { score: 100, reason: "needs nothing but a processor".into(), devices: vec![cpu] }
    }

    fn estimate(&self, request: &LoadRequest) -> Result<Vec<Memory>> {
        let (model, _) =
            self.open(request, &mut |_: f32, _: &str| std::ops::ControlFlow::Continue(()), &Cancel::new())?;
        Ok(vec![model.memory()])
    }

    fn load(
        &self,
        request: &LoadRequest,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Box<dyn Session>> {
        let (model, options) = self.open(request, progress, cancel)?;
        self.host.log(Level::Info, format!("{}: {} words", request.path.display(), model.words().len()));
        Ok(Box::new(BigramSession::new(model, options)))
    }
}

fn plugin(host: HostContext) -> Result<Plugin> {
    let info = PluginInfo {
        name: "recommended".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        license: "MIT OR Apache-2.0".into(),
        vendor: "pajamas".into(),
        description: "An example of a backend".into(),
    };
    let settings = Settings::read(host.settings()).map_err(|e| {
        PluginError::new(codes::INVALID_OPTION, format!("[plugins.settings.recommended]: {e}"))
    })?;
    host.log(Level::Debug, format!("tables of at most {} rules", settings.max_rules));
    Ok(Plugin::new(info).backend(Bigram { host, settings }))
}

export_plugin!(name: "recommended", version: env!("CARGO_PKG_VERSION"), create: plugin);

#[cfg(test)]
mod tests {
    use super::*;
    use pajamas_plugin_api::GenerateRequest;
    use std::ops::ControlFlow;

    fn load(text: &str, options: serde_json::Value, cancel: &Cancel) -> Result<Box<dyn Session>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.bigram");
        std::fs::write(&path, text).unwrap();
        let backend = Bigram { host: HostContext::for_tests(folder.path()), settings: Settings::default() };
        let request = LoadRequest { path, format: "bigram".into(), device: String::new(), options };
        backend.load(&request, &mut |_: f32, _: &str| ControlFlow::Continue(()), cancel)
    }

    #[test]
    fn the_sink_may_stop_a_generation() {
        struct One(u32);
        impl pajamas_plugin_api::TokenSink for One {
            fn token(&mut self, _: pajamas_plugin_api::TokenEvent<'_>) -> ControlFlow<()> {
                self.0 += 1;
                ControlFlow::Break(())
            }
        }
        let session = load("a b\nb a\n", serde_json::Value::Null, &Cancel::new()).unwrap();
        let mut one = One(0);
        let request = GenerateRequest::new(pajamas_plugin_api::Prompt::text("a"));
        session.generate(&request, &mut one, &Cancel::new()).unwrap();
        assert_eq!(one.0, 1);
    }

    #[test]
    fn bad_models_options_and_cancel_are_refused_with_their_codes() {
        let code = |text: &str, options| load(text, options, &Cancel::new()).err().unwrap().code;
        assert_eq!(code("a b c\n", serde_json::Value::Null), "model-invalid");
        assert_eq!(code("", serde_json::Value::Null), "model-invalid");
        assert_eq!(code("a b\n", serde_json::json!({"contxt": 8})), "invalid-option");
        assert_eq!(code("a b\n", serde_json::json!({"context": 0})), "invalid-option");
        let cancel = Cancel::new();
        cancel.cancel();
        assert_eq!(load("a b\n", serde_json::Value::Null, &cancel).err().unwrap().code, "cancelled");
    }
}
