//! What an operator may set: options per model, settings per plugin.

use pajamas_plugin_api::{PluginError, Result, codes};
use serde::Deserialize;
use serde_json::{Value, json};

/// Options of one model, from `models.ID.options`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Words one request may use, prompt and answer together.
    pub context: u32,
    /// Whether words are matched without regard to case.
    pub ignore_case: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { context: 256, ignore_case: false }
    }
}

impl Options {
    /// The JSON Schema that `pajamas plugins inspect` shows and the host checks against.
    pub fn schema() -> Value {
        let default = Self::default();
        json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "context": {
                    "type": "integer", "minimum": 1, "maximum": 65536, "default": default.context,
                    "description": "Words one request may use, prompt and answer together."
                },
                "ignore_case": {
                    "type": "boolean", "default": default.ignore_case,
                    "description": "Whether words are matched without regard to case."
                }
            }
        })
    }

    /// Reads options; null stands for the defaults.
    pub fn read(options: &Value) -> Result<Self> {
        let invalid = |why: String| PluginError::new(codes::INVALID_OPTION, why);
        if options.is_null() {
            return Ok(Self::default());
        }
        let options: Self = serde_json::from_value(options.clone()).map_err(|e| invalid(e.to_string()))?;
        if !(1..=65536).contains(&options.context) {
            return Err(invalid(format!("`context` is {}", options.context)).help("set it to 1..=65536"));
        }
        Ok(options)
    }
}

/// Settings of the whole plugin, from `[plugins.settings.recommended]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The largest table that is loaded.
    pub max_rules: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_rules: 1 << 20 }
    }
}

impl Settings {
    /// Reads settings; null stands for the defaults.
    pub fn read(settings: Value) -> serde_json::Result<Self> {
        if settings.is_null() { Ok(Self::default()) } else { serde_json::from_value(settings) }
    }
}
