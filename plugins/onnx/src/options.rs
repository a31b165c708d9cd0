//! Options that a model is loaded with.

use pajamas_plugin_api::{PluginError, Result, codes};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The most threads that an option may ask for: a typing error must not bring the machine down.
const MAX_THREADS: usize = 1024;

/// How much of a graph is rewritten before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) enum Optimization {
    /// Nothing.
    None,
    /// What keeps the graph portable: constant folding, dead nodes.
    Basic,
    /// Fused operators.
    Extended,
    /// Layout changes as well.
    Layout,
    /// Everything the engine knows.
    #[default]
    All,
}

impl TryFrom<Value> for Optimization {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match (value.as_u64(), value.as_str()) {
            (Some(0), _) => Ok(Self::None),
            (Some(1), _) => Ok(Self::Basic),
            (Some(2), _) => Ok(Self::Extended),
            (Some(3), _) => Ok(Self::Layout),
            (_, Some("all")) => Ok(Self::All),
            _ => Err(format!("optimization is {value}; it must be 0, 1, 2, 3 or \"all\"")),
        }
    }
}

/// A number of threads, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct Threads(pub(crate) usize);

impl TryFrom<Value> for Threads {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
        match number.filter(|n| (1..=MAX_THREADS).contains(n)) {
            Some(n) => Ok(Self(n)),
            None => Err(format!("a number of threads is {value}; it must be from 1 to {MAX_THREADS}")),
        }
    }
}

/// How many runs there may be at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Parallel(pub(crate) Threads);

impl Default for Parallel {
    fn default() -> Self {
        Self(Threads(1))
    }
}

impl Parallel {
    pub(crate) fn runs(self) -> usize {
        self.0.0
    }

    /// What so many runs take, in bytes.
    pub(crate) fn scratch(self, of_one: u64) -> u64 {
        of_one.saturating_mul(self.runs() as u64)
    }
}

/// Options of the `onnxruntime` backend.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OnnxRuntimeOptions {
    pub(crate) threads: Option<Threads>,
    pub(crate) parallel: Parallel,
    pub(crate) inter_op_threads: Option<Threads>,
    pub(crate) optimization: Optimization,
    pub(crate) execution_providers: Vec<String>,
    pub(crate) cpu_arena: bool,
    pub(crate) memory_pattern: bool,
    pub(crate) spinning: bool,
}

impl Default for OnnxRuntimeOptions {
    fn default() -> Self {
        Self {
            threads: None,
            parallel: Parallel::default(),
            inter_op_threads: None,
            optimization: Optimization::All,
            execution_providers: Vec::new(),
            cpu_arena: true,
            memory_pattern: true,
            spinning: true,
        }
    }
}

/// Options of the `rten` backend.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RtenOptions {
    pub(crate) threads: Option<Threads>,
    pub(crate) parallel: Parallel,
    pub(crate) optimization: Optimization,
    pub(crate) prepack_weights: bool,
}

/// Reads the options of a load request; null means the defaults.
///
/// # Errors
/// `invalid-option` for a name or a value that `schema` does not have.
pub(crate) fn parse<T: DeserializeOwned + Default>(
    backend: &str,
    options: &Value,
    schema: &Value,
) -> Result<T> {
    if options.is_null() {
        return Ok(T::default());
    }
    let refuse = |what: String| {
        let known =
            schema["properties"].as_object().map(|p| p.keys().cloned().collect::<Vec<_>>().join(", "));
        PluginError::new(codes::INVALID_OPTION, format!("backend {backend}: {what}"))
            .help(format!("its options are {}", known.unwrap_or_default()))
    };
    if !options.is_object() {
        return Err(refuse(format!("options must be an object, not {options}")));
    }
    T::deserialize(options).map_err(|error| refuse(error.to_string()))
}

fn threads_schema() -> Value {
    json!({
        "type": "integer", "minimum": 1, "maximum": MAX_THREADS,
        "description": "Threads that share the work of one operator. Default: one per physical core."
    })
}

fn parallel_schema() -> Value {
    json!({
        "type": "integer", "minimum": 1, "maximum": MAX_THREADS, "default": 1,
        "description": "Runs side by side, each with as many threads as `threads` says and memory of its own. Requests come \
                        faster through two runs of one thread than through one run of two, but each takes longer."
    })
}

fn optimization_schema(description: &str) -> Value {
    json!({ "enum": [0, 1, 2, 3, "all"], "default": "all", "description": description })
}

/// The JSON Schema of [`OnnxRuntimeOptions`]; `providers` are the names that `execution_providers` may hold.
pub(crate) fn onnxruntime_schema(providers: &[&str]) -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "threads": threads_schema(),
            "parallel": parallel_schema(),
            "inter_op_threads": {
                "type": "integer", "minimum": 1, "maximum": MAX_THREADS,
                "description": "Threads that run independent operators side by side; more than 1 pays only for \
                                graphs with wide branches. Default: operators run one after another."
            },
            "optimization": optimization_schema(
                "How much of the graph is rewritten before it runs: 0 nothing, 1 basic, 2 extended, 3 layout."
            ),
            "execution_providers": {
                "type": "array", "items": { "enum": providers }, "default": [],
                "description": "Accelerators to use, the preferred one first. One that cannot start is an error, \
                                never a silent fallback; operators that it lacks run on the processor."
            },
            "cpu_arena": {
                "type": "boolean", "default": true,
                "description": "Keep freed memory for the next run: faster, and the session holds its peak."
            },
            "memory_pattern": {
                "type": "boolean", "default": true,
                "description": "Plan one block of memory for all tensors of a run when shapes repeat."
            },
            "spinning": {
                "type": "boolean", "default": true,
                "description": "Idle threads wait actively between operators: faster, at the cost of processor time."
            }
        }
    })
}

/// The JSON Schema of [`RtenOptions`].
pub(crate) fn rten_schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "threads": threads_schema(),
            "parallel": parallel_schema(),
            "optimization": optimization_schema("0 runs the graph as it is; any other value rewrites it."),
            "prepack_weights": {
                "type": "boolean", "default": false,
                "description": "Keep a second copy of the weights in the order the processor likes: faster runs, \
                                slower loading, more memory."
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_strictly() {
        let schema = onnxruntime_schema(&["cuda"]);
        let read = |options: Value| parse::<OnnxRuntimeOptions>("onnxruntime", &options, &schema);
        assert_eq!(read(Value::Null).unwrap(), OnnxRuntimeOptions::default());
        assert_eq!(read(json!({})).unwrap(), OnnxRuntimeOptions::default());
        let options =
            read(json!({ "threads": 2, "optimization": 1, "execution_providers": ["cuda"] })).unwrap();
        assert_eq!(options.threads, Some(Threads(2)));
        assert_eq!(options.optimization, Optimization::Basic);
        for wrong in [
            json!({ "thread": 2 }),
            json!({ "threads": 0 }),
            json!({ "threads": 1e9 }),
            json!({ "threads": "2" }),
            json!({ "parallel": 0 }),
            json!({ "optimization": 4 }),
            json!({ "optimization": "most" }),
            json!([1]),
            json!("fast"),
        ] {
            let error = read(wrong.clone()).unwrap_err();
            assert_eq!(error.code, codes::INVALID_OPTION, "{wrong}");
            assert!(error.help.contains("inter_op_threads"), "{error}");
        }
    }

    #[test]
    fn the_schemas_name_exactly_the_options() {
        // A field without a schema entry would be accepted and never documented; the reverse would be refused.
        for (schema, sample) in [
            (
                onnxruntime_schema(&[]),
                json!({ "threads": 1, "parallel": 1, "inter_op_threads": 1, "optimization": "all", "execution_providers": [],
                        "cpu_arena": true, "memory_pattern": true, "spinning": true }),
            ),
            (
                rten_schema(),
                json!({ "threads": 1, "parallel": 2, "optimization": "all", "prepack_weights": true }),
            ),
        ] {
            let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(&schema["properties"]), keys(&sample));
        }
        parse::<RtenOptions>("rten", &json!({ "inter_op_threads": 1 }), &rten_schema()).unwrap_err();
    }
}
