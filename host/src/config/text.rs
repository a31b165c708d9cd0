//! Values that are written as one piece of text: ids, addresses, choices, paths.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A type that is read with `FromStr` (whose error is a sentence) and written with `Display`, in the configuration as
/// in its JSON Schema.
macro_rules! text_value {
    ($type:ty, $what:literal, $pattern:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::config::text::parse::<Self, D>(deserializer, $what)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": $what, "pattern": $pattern })
            }
        }
    };
}
pub(super) use text_value;

pub(super) fn parse<'de, T, D>(deserializer: D, what: &'static str) -> Result<T, D::Error>
where
    T: FromStr<Err = String>,
    D: Deserializer<'de>,
{
    struct Text<T>(&'static str, std::marker::PhantomData<T>);

    impl<T: FromStr<Err = String>> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Text(what, std::marker::PhantomData))
}

/// The name of a model or pipeline, used on the command line and in the API: letters, digits and `. _ - :`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(String);

text_value!(Id, "an id such as \"small-chat\"", r"^[A-Za-z0-9][A-Za-z0-9._:-]*$");

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        // No slash: what has one is a path.
        let goes_on = text.chars().all(|c| c.is_ascii_alphanumeric() || "._-:".contains(c));
        if begins && goes_on {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "`{text}` is not an id: use letters, digits, `.`, `_`, `-` and `:`, a letter or digit first"
            ))
        }
    }
}

impl Deref for Id {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Address and port to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

text_value!(Address, "an address such as \"127.0.0.1:8797\"", r"^(.+):[0-9]+$");

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!("`{text}` is not an address: write IP and port, for example \"127.0.0.1:8797\" or \"[::1]:8797\"")
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which backend runs a model: `auto`, a backend's id, or `plugin/id` when two plugins use the same id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The one with the highest score among those that can.
    #[default]
    Auto,
    /// This one.
    Named {
        /// The plugin that must export it; any plugin when `None`.
        plugin: Option<String>,
        /// The backend's id.
        id: String,
    },
}

text_value!(BackendChoice, "\"auto\", a backend's id, or \"plugin/id\"", r"^[^/]+(/[^/]+)?$");

impl BackendChoice {
    /// Whether it allows the backend `id` of `plugin`.
    pub fn allows(&self, plugin: &str, id: &str) -> bool {
        match self {
            Self::Auto => true,
            Self::Named { plugin: p, id: i } => i == id && p.as_ref().is_none_or(|p| p == plugin),
        }
    }
}

impl FromStr for BackendChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = |plugin: Option<&str>, id: &str| Self::Named {
            plugin: plugin.map(str::to_owned),
            id: id.to_owned(),
        };
        match text.split('/').collect::<Vec<_>>()[..] {
            ["auto"] => Ok(Self::Auto),
            [id] if !id.is_empty() => Ok(named(None, id)),
            [plugin, id] if !plugin.is_empty() && !id.is_empty() => Ok(named(Some(plugin), id)),
            _ => Err(format!("`{text}` is not a backend: write \"auto\", a backend's id, or \"plugin/id\"")),
        }
    }
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Named { plugin: None, id } => f.write_str(id),
            Self::Named { plugin: Some(plugin), id } => write!(f, "{plugin}/{id}"),
        }
    }
}

/// Where a model runs: `auto`, or a device such as `cpu`, `cuda:0`, `metal:0`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The backend's preferred device.
    #[default]
    Auto,
    /// This one.
    Named(String),
}

text_value!(
    DeviceChoice,
    "\"auto\" or a device such as \"cpu\" or \"cuda:0\"",
    r"^[a-z][a-z0-9]*(:[0-9]+)?$"
);

impl DeviceChoice {
    /// The device's id, or the empty text for the backend's preferred one: as a load request has it.
    pub fn as_request(&self) -> &str {
        match self {
            Self::Auto => "",
            Self::Named(id) => id,
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, number) = text.split_once(':').unwrap_or((text, "0"));
        let is_kind = kind.starts_with(|c: char| c.is_ascii_lowercase())
            && kind.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        match text {
            "auto" => Ok(Self::Auto),
            _ if is_kind && number.parse::<u16>().is_ok() => Ok(Self::Named(text.to_owned())),
            _ => Err(format!(
                "`{text}` is not a device: write \"auto\", or for example \"cpu\", \"cuda:0\", \"metal:0\""
            )),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Named(id) => f.write_str(id),
        }
    }
}

/// A file or folder. Relative ones are relative to the file that wrote them (from the environment or a flag: to the
/// current folder), and `~/` is the home folder; once read, the path is absolute or begins at the current folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct LocalPath(PathBuf);

impl LocalPath {
    /// How the deserializer of the configuration recognises a path that it has to resolve.
    pub(super) const MARKER: &str = "pajamas::LocalPath";

    /// A path that needs no resolving.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl Deref for LocalPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for LocalPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl<'de> Deserialize<'de> for LocalPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = marked_text(deserializer, Self::MARKER)?;
        if text.is_empty() {
            Err(D::Error::custom("a path must not be empty"))
        } else {
            Ok(Self(text.into()))
        }
    }
}

/// A file that a stage may read: of the model's artifact when written `artifact:labels.txt`, else a [`LocalPath`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantedFile {
    /// A path inside the artifact of the model that the pipeline runs.
    Artifact(String),
    /// A file of the operator.
    Local(LocalPath),
}

impl GrantedFile {
    /// What a path into the artifact begins with.
    pub(super) const ARTIFACT: &str = "artifact:";

    /// See [`LocalPath::MARKER`].
    pub(super) const MARKER: &str = "pajamas::GrantedFile";
}

impl<'de> Deserialize<'de> for GrantedFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = marked_text(deserializer, Self::MARKER)?;
        match text.strip_prefix(Self::ARTIFACT) {
            _ if text.is_empty() => Err(D::Error::custom("a path must not be empty")),
            Some(inside) if crate::config::text::stays_inside(inside) => {
                Ok(Self::Artifact(inside.to_owned()))
            }
            Some(inside) => Err(D::Error::custom(format!(
                "`{inside}` leads out of the artifact: name a file in it, for example \"artifact:labels.txt\""
            ))),
            None => Ok(Self::Local(LocalPath(text.into()))),
        }
    }
}

impl Serialize for GrantedFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Artifact(inside) => serializer.collect_str(&format_args!("{}{inside}", Self::ARTIFACT)),
            Self::Local(path) => path.serialize(serializer),
        }
    }
}

impl JsonSchema for GrantedFile {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "GrantedFile".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "a file, or \"artifact:…\" for one in the model's artifact",
        })
    }
}

/// Whether a relative path can only lead to something below where it starts.
pub(crate) fn stays_inside(path: &str) -> bool {
    use std::path::Component;
    !path.is_empty()
        && Path::new(path).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
}

/// Text behind a newtype whose name tells the configuration's deserializer to resolve it as a path.
fn marked_text<'de, D: Deserializer<'de>>(deserializer: D, marker: &'static str) -> Result<String, D::Error> {
    struct Marked;

    impl<'de> Visitor<'de> for Marked {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a path")
        }

        fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<String, D::Error> {
            String::deserialize(inner)
        }
    }

    deserializer.deserialize_newtype_struct(marker, Marked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_hold_no_spaces_and_no_slashes() {
        for id in ["chat", "llama-3.2:1b", "a_b", "0"] {
            assert_eq!(id.parse::<Id>().map(|i| i.to_string()), Ok(id.to_owned()));
        }
        for id in ["", "models/chat", "my chat", "-x", "é", ".hidden"] {
            assert!(id.parse::<Id>().is_err(), "{id}");
        }
    }

    #[test]
    fn a_backend_is_auto_an_id_or_a_plugin_and_an_id() {
        let onnx: BackendChoice = "onnx/rten".parse().unwrap();
        assert!(onnx.allows("onnx", "rten") && !onnx.allows("other", "rten") && !onnx.allows("onnx", "ort"));
        assert!("rten".parse::<BackendChoice>().unwrap().allows("any", "rten"));
        assert!(BackendChoice::Auto.allows("any", "any"));
        for text in ["", "/", "a/", "/b", "a/b/c"] {
            assert!(text.parse::<BackendChoice>().is_err(), "{text}");
        }
        for text in ["auto", "rten", "onnx/rten"] {
            assert_eq!(text.parse::<BackendChoice>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_device_is_a_kind_with_or_without_a_number() {
        for text in ["auto", "cpu", "cuda:0", "ane"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        for text in ["", "CPU", "cuda:", "cuda:x", ":0", "gpu 1"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
        assert_eq!(DeviceChoice::Auto.as_request(), "");
    }

    #[test]
    fn a_path_that_leads_out_is_seen() {
        assert!(stays_inside("labels.txt") && stays_inside("./a/b.txt"));
        for path in ["", "..", "a/../../b", "/etc/passwd"] {
            assert!(!stays_inside(path), "{path}");
        }
    }
}
