//! Metadata that llama.cpp does not refuse but asserts, which ends the process: checked before it sees the file.

use super::Error;
use super::header::{Header, TOKEN_TYPES};
use super::value::{Array, Value};

/// llama.cpp's limits (`llama-hparams.h`).
const MOST_LAYERS: u64 = 512;
const MOST_EXPERTS: u64 = 1024;
/// The type of tokens that stand for a byte.
const BYTE_TOKEN: i32 = 6;
const ROPE_SCALINGS: [&str; 4] = ["none", "linear", "yarn", "longrope"];

impl Header {
    /// Checks what llama.cpp would end the process over. Does not replace its own checks, which refuse the rest.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the entry.
    pub fn check_model(&self) -> Result<(), Error> {
        let layers = self.family_u64("block_count");
        if let Some(layers) = layers
            && !(1..=MOST_LAYERS).contains(&layers)
        {
            return Err(self.wrong("block_count", format!("is {layers}, not 1 to {MOST_LAYERS}")));
        }
        if let (Some(layers), Some(extra)) = (layers, self.family_u64("nextn_predict_layers"))
            && extra > layers
        {
            return Err(self.wrong("nextn_predict_layers", format!("is {extra} of {layers} layers")));
        }
        self.check_experts()?;
        for key in ["attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"] {
            if let Some(Value::F32(epsilon)) = self.family(key)
                && !(0.0..=1.0).contains(epsilon)
            {
                return Err(self.wrong(key, format!("is {epsilon}")));
            }
        }
        if let Some(scaling) = self.family("rope.scaling.type").and_then(Value::as_text)
            && !ROPE_SCALINGS.contains(&scaling)
        {
            let known = ROPE_SCALINGS.join(", ");
            return Err(self.wrong("rope.scaling.type", format!("is \"{scaling}\", not one of {known}")));
        }
        // WordPiece has no bytes; llama.cpp renders every token when it loads a vocabulary.
        if self.value("tokenizer.ggml.model").and_then(Value::as_text) == Some("bert")
            && let Some(Value::Array(Array { items, .. })) = self.value(TOKEN_TYPES)
            && items.contains(&Value::I32(BYTE_TOKEN))
        {
            let what = format!("`{TOKEN_TYPES}` lists byte tokens, which a WordPiece vocabulary cannot have");
            return Err(Error::Invalid { what, at: 0 });
        }
        Ok(())
    }

    fn check_experts(&self) -> Result<(), Error> {
        let experts = self.family_u64("expert_count").unwrap_or(0);
        if experts > MOST_EXPERTS {
            return Err(self.wrong("expert_count", format!("is {experts}, more than {MOST_EXPERTS}")));
        }
        // One number, or one for each layer.
        let used = match self.family("expert_used_count") {
            Some(Value::Array(Array { items, .. })) => {
                items.iter().filter_map(Value::as_u64).max().unwrap_or(0)
            }
            value => value.and_then(Value::as_u64).unwrap_or(0),
        };
        if used > experts || (experts > 0 && used == 0) {
            return Err(self.wrong("expert_used_count", format!("is {used} of {experts} experts")));
        }
        let groups = self.family_u64("expert_group_count").unwrap_or(0);
        let used = self.family_u64("expert_group_used_count").unwrap_or(0);
        let grouped = experts > 0 && groups > 1;
        if experts > 0
            && (groups >= experts
                || (grouped && (!experts.is_multiple_of(groups) || used == 0 || used >= groups)))
        {
            return Err(
                self.wrong("expert_group_count", format!("is {groups}, {used} used, of {experts} experts"))
            );
        }
        Ok(())
    }

    fn family(&self, key: &str) -> Option<&Value> {
        self.value(&format!("{}.{key}", self.architecture()?))
    }

    fn wrong(&self, key: &str, what: String) -> Error {
        let family = self.architecture().unwrap_or_default();
        Error::Invalid { what: format!("the metadata entry `{family}.{key}` {what}"), at: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TensorType, Writer};
    use super::*;

    fn check(change: impl FnOnce(&mut Writer)) -> Result<(), String> {
        let mut writer = Writer::new("llama");
        writer.set("llama.block_count", 2u32).tensor("t", TensorType::F32, &[1]);
        change(&mut writer);
        let mut file = Vec::new();
        writer.write(&mut file, |_, out| out.write_all(&[0; 4])).unwrap();
        let header = Header::read(&file[..], file.len() as u64).unwrap();
        header.check_model().map_err(|e| e.to_string())
    }

    #[test]
    fn what_llama_cpp_asserts_is_refused() {
        assert_eq!(check(|_| {}), Ok(()));
        assert_eq!(
            check(|w| _ = w.set("llama.expert_count", 8u32).set("llama.expert_used_count", 2u32)),
            Ok(())
        );
        for (key, value) in [
            ("block_count", Value::U32(0)),
            ("block_count", Value::U32(513)),
            ("nextn_predict_layers", Value::U32(3)),
            ("expert_count", Value::U32(4)),
            ("expert_count", Value::U32(u32::MAX)),
            ("expert_used_count", Value::U32(1)),
            ("attention.layer_norm_rms_epsilon", Value::F32(-1.0)),
            ("attention.layer_norm_rms_epsilon", Value::F32(f32::NAN)),
            ("rope.scaling.type", Value::Text("weird".into())),
        ] {
            let error = check(|w| _ = w.set(&format!("llama.{key}"), value.clone())).unwrap_err();
            assert!(error.contains("`llama."), "{key} = {value:?}: {error}");
        }
        let bytes = |tokenizer: &str| {
            check(|w| _ = w.set("tokenizer.ggml.model", tokenizer).set(TOKEN_TYPES, vec![1, BYTE_TOKEN]))
        };
        assert!(bytes("bert").unwrap_err().contains("byte tokens"));
        assert_eq!(bytes("llama"), Ok(()));
    }
}
