//! For the native tests of a stage.

use serde_json::{Value as Json, json};

use crate::{Error, Files, Result, Stage, adapter};

/// Makes a stage as the host does: from options as JSON text.
pub fn create<S: Stage>(options: &Json, files: Files) -> Result<S> {
    adapter::create(&options.to_string(), files)
}

/// Checks that the options' schema and the options agree: every default is accepted, alone and together, and an
/// unknown option is refused with `invalid-option`.
///
/// # Panics
/// When they do not agree.
pub fn check_options<S: Stage>(files: Files) {
    let schema = S::describe().options_schema();
    let mut all = json!({});
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        assert!(property["description"].is_string(), "the option `{name}` has no description");
        if let Some(default) = property.get("default") {
            all[name] = default.clone();
            accepts::<S>(&json!({ name: default }), &files);
        }
    }
    accepts::<S>(&all, &files);
    accepts::<S>(&json!({}), &files);
    let unknown = create::<S>(&json!({ "no-such-option": 1 }), files).map(|_| ());
    assert_eq!(unknown.map_err(|e| e.code), Err("invalid-option".to_owned()), "an unknown option is refused");
}

fn accepts<S: Stage>(options: &Json, files: &Files) {
    if let Err(Error { code, message, .. }) = create::<S>(options, files.clone()) {
        panic!("{options} is what the schema calls default, and is refused: {message} [{code}]");
    }
}
