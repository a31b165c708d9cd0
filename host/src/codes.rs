//! Every error code the host knows, in one table: what it means, and who has to act.
//!
//! Plugins and stages may add their own; an unknown code counts as [`Class::Internal`].

use crate::error::Class;

/// (code, class, meaning), grouped by the module that refuses.
pub const CODES: &[(&str, Class, &str)] = &[
    // files
    ("file-not-found", Class::NotFound, "a file or folder that was named does not exist"),
    ("io", Class::Internal, "reading or writing a file failed"),
    // config
    ("config-syntax", Class::Invalid, "the configuration is not TOML"),
    ("config-version", Class::Invalid, "the configuration has the layout of another version of pajamas"),
    ("config-unknown-key", Class::Invalid, "the configuration has a key that does not exist"),
    ("config-missing-key", Class::Invalid, "the configuration lacks a key that is needed"),
    ("config-invalid-value", Class::Invalid, "a value of the configuration has the wrong type or is out of range"),
    ("config-duplicate-id", Class::Invalid, "two models or two pipelines have the same id"),
    ("config-unknown-reference", Class::Invalid, "the configuration names a model, pipeline or stage that does not exist"),
    ("config-file-missing", Class::Invalid, "a file that the configuration needs, or the configuration itself, does not exist"),
    ("config-conflict", Class::Invalid, "two values of the configuration exclude each other"),
    ("config-invalid", Class::Invalid, "the configuration has several problems of different kinds"),
    ("listen-not-loopback", Class::Invalid, "the server would be open to other machines, without keys"),
    // artifacts
    ("manifest-missing", Class::NotFound, "a folder that should be an artifact has no manifest.json"),
    ("manifest-invalid", Class::Invalid, "the manifest.json of an artifact is damaged or lacks what it must say"),
    ("artifact-version", Class::Invalid, "the artifact has the layout of a newer version of pajamas"),
    ("artifact-corrupt", Class::Invalid, "a file of an artifact is missing or not what its manifest says"),
    ("variant-not-found", Class::NotFound, "the artifact has not the format or precision that was asked for"),
    // requests, shared with plugins
    ("invalid-input", Class::Invalid, "the request or a value in it is wrong"),
    ("invalid-option", Class::Invalid, "an option is unknown or out of range"),
    ("unsupported", Class::Invalid, "the model, backend or plugin does not offer the operation"),
    ("context-length-exceeded", Class::Invalid, "prompt and answer do not fit the model's context"),
    ("cancelled", Class::Cancelled, "the caller stopped the request"),
    ("out-of-memory", Class::Unavailable, "the device has not enough memory"),
    ("model-not-found", Class::NotFound, "no model of this id, and no file or artifact at this path"),
    ("model-invalid", Class::Invalid, "the model file is damaged, truncated or of another format"),
    ("output-too-large", Class::TooLarge, "a backend or stage produced more than the limit allows"),
    ("internal", Class::Internal, "a fault of the host or a plugin: please report it"),
    // stages
    ("stage-not-found", Class::NotFound, "no stage of this name is in the folders or built in"),
    ("stage-invalid", Class::Invalid, "the file is no component, or not one of the stage's world"),
    ("stage-import-refused", Class::Invalid, "the component imports what no stage is granted"),
    ("stage-trapped", Class::Internal, "the stage crashed; only this run is lost"),
    ("stage-deadline", Class::Unavailable, "the stage was not done in its time"),
    ("stage-memory", Class::TooLarge, "the stage asked for more memory than it may have"),
    ("stage-output-too-large", Class::TooLarge, "the stage left more than its limit allows"),
    ("stage-output-invalid", Class::Internal, "the stage left values that contradict themselves or its description"),
    ("stage-failed", Class::Internal, "the stage refused with a code that is none"),
    ("file-not-granted", Class::Invalid, "a stage looked for a file that its configuration does not grant"),
    ("image-invalid", Class::Invalid, "the picture is damaged or truncated"),
    ("image-unsupported", Class::Invalid, "the file is no picture of a known format"),
    ("image-too-large", Class::TooLarge, "the picture has more bytes or pixels than the limit allows"),
];

/// The class of a code.
pub fn class(code: &str) -> Class {
    CODES.iter().find(|(c, _, _)| *c == code).map_or(Class::Internal, |(_, class, _)| *class)
}
