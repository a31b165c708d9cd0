//! Hashes of files that a quantizer took as it wrote them, so that nobody has to read them again: the extension
//! `pajamas.sums/1`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::extension::{Extension, call, read, to_json};
use crate::sink::{Cancel, EventSink, TensorSink};
use crate::tensor::NamedTensor;
use crate::{Quantizer, Result};

/// The name of the extension of a [`Quantizer`] that hashes what it writes.
pub const SUMS: &str = "pajamas.sums/1";

/// SHA-256 in lower-case hexadecimal, by path below the output folder.
pub type Sums = BTreeMap<PathBuf, String>;

/// What the extension is asked.
#[derive(Debug, Serialize, Deserialize)]
struct Call {
    /// The folder that was written into, as [`QuantizeRequest::output`](crate::QuantizeRequest::output) named it.
    output: PathBuf,
}

/// The sums of the files that the quantizer's last run wrote into a folder, as far as it took them; none when it takes none.
///
/// # Errors
/// Those of the call; `plugin-protocol` when it is answered with something else.
pub fn sums_of(quantizer: &dyn Quantizer, output: &Path) -> Result<Sums> {
    match quantizer.extension(SUMS) {
        Some(sums) => call(&*sums, SUMS, &Call { output: output.to_owned() }),
        None => Ok(Sums::new()),
    }
}

/// The plugin's side: an extension that answers with what a function says of a folder. It may forget a run when another
/// begins.
pub struct SumsExtension<F>(pub F);

impl<F: Fn(&Path) -> Sums + Send + Sync> Extension for SumsExtension<F> {
    fn call(
        &self,
        input: &[u8],
        _tensors: &[NamedTensor<'_>],
        _events: &mut dyn EventSink,
        _outputs: &mut dyn TensorSink,
        _cancel: &Cancel,
    ) -> Result<Vec<u8>> {
        let call: Call = read(SUMS, input)?;
        to_json(&(self.0)(&call.output))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::extension::ask;

    /// These bytes are the extension's meaning, and never change.
    #[test]
    fn the_words_are_those_of_the_documentation() {
        let extension = SumsExtension(|folder: &Path| match folder.to_str() {
            Some("/out") => [("a.gguf".into(), "ab01".into())].into(),
            _ => Sums::new(),
        });
        let say = |words: &str| ask::<Value>(&extension, SUMS, words.as_bytes());
        assert_eq!(say(r#"{"output":"/out"}"#).unwrap(), json!({"a.gguf": "ab01"}));
        assert_eq!(say(r#"{"output":"/elsewhere"}"#).unwrap(), json!({}));
        assert_eq!(say("{}").unwrap_err().code, "invalid-input");
    }
}
