//! The trait that a stage implements.

use serde::de::DeserializeOwned;

use crate::{Description, Error, Result, Values};

/// A stage: made once from options and files, run for many values.
pub trait Stage: Sized + 'static {
    /// The options, as the configuration spells them. Derive `Deserialize` with
    /// `#[serde(default, deny_unknown_fields)]`: a misspelt option must be an error.
    type Options: DeserializeOwned;

    /// Who the stage is, what it takes and what it leaves. Must not depend on anything.
    fn describe() -> Description;

    /// Checks the options and parses the files.
    fn create(options: Self::Options, files: Files) -> Result<Self>;

    /// Turns values into values. Inputs it does not know are not there: the host passes only what
    /// [`describe`](Stage::describe) lists.
    fn run(&self, inputs: Values) -> Result<Values>;
}

/// The files of the artifact that the configuration grants to a stage, by name.
#[derive(Debug, Clone, Default)]
pub struct Files(Vec<(String, Vec<u8>)>);

impl Files {
    /// Every file's name and content, in the configuration's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, content)| (name.as_str(), content.as_slice()))
    }

    /// The content of a file, or an error that says which files were granted.
    pub fn get(&self, name: &str) -> Result<&[u8]> {
        self.iter().find(|(n, _)| *n == name).map(|(_, content)| content).ok_or_else(|| {
            let granted: Vec<_> = self.iter().map(|(n, _)| n).collect();
            let granted = if granted.is_empty() { "no file".into() } else { granted.join(", ") };
            Error::new("file-not-granted", format!("the file `{name}` was not granted to this stage"))
                .with_help(format!("add it to the stage's `files`; granted: {granted}"))
        })
    }

    /// The content of a file as text.
    pub fn text(&self, name: &str) -> Result<&str> {
        std::str::from_utf8(self.get(name)?)
            .map_err(|e| Error::invalid_option(format!("the file `{name}` is not UTF-8: {e}")))
    }
}

impl<N: Into<String>, C: Into<Vec<u8>>> FromIterator<(N, C)> for Files {
    fn from_iter<I: IntoIterator<Item = (N, C)>>(files: I) -> Self {
        Self(files.into_iter().map(|(name, content)| (name.into(), content.into())).collect())
    }
}
