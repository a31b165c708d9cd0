//! The precisions of files: llama.cpp's file types.

use std::str::FromStr;

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_plugin_api::{PluginError, Result, codes};

/// What a file is called after: most of its tensors are of one type, the rest of others that the mixture chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, missing_docs, reason = "the names are llama.cpp's (llama_ftype, llama.h)")]
pub enum FileType {
    F32,
    F16,
    BF16,
    Q8_0,
    Q6_K,
    Q5_K_M,
    Q5_K_S,
    Q4_K_M,
    Q4_K_S,
    Q3_K_L,
    Q3_K_M,
    Q3_K_S,
    Q2_K,
    Q2_K_S,
    Q5_1,
    Q5_0,
    Q4_1,
    Q4_0,
    IQ4_NL,
    IQ4_XS,
    IQ3_M,
    IQ3_S,
    IQ3_XS,
    IQ3_XXS,
    IQ2_M,
    IQ2_S,
    IQ2_XS,
    IQ2_XXS,
    IQ1_M,
    IQ1_S,
    TQ2_0,
    TQ1_0,
    MXFP4_MOE,
}

use FileType::*;

/// (type, name, number in a file, type of most tensors): `llama_ftype_get_default_type`, llama-quant.cpp.
const ROWS: [(FileType, &str, u32, TensorType); 33] = [
    (F32, "F32", 0, TensorType::F32),
    (F16, "F16", 1, TensorType::F16),
    (BF16, "BF16", 32, TensorType::BF16),
    (Q8_0, "Q8_0", 7, TensorType::Q8_0),
    (Q6_K, "Q6_K", 18, TensorType::Q6_K),
    (Q5_K_M, "Q5_K_M", 17, TensorType::Q5_K),
    (Q5_K_S, "Q5_K_S", 16, TensorType::Q5_K),
    (Q4_K_M, "Q4_K_M", 15, TensorType::Q4_K),
    (Q4_K_S, "Q4_K_S", 14, TensorType::Q4_K),
    (Q3_K_L, "Q3_K_L", 13, TensorType::Q3_K),
    (Q3_K_M, "Q3_K_M", 12, TensorType::Q3_K),
    (Q3_K_S, "Q3_K_S", 11, TensorType::Q3_K),
    (Q2_K, "Q2_K", 10, TensorType::Q2_K),
    (Q2_K_S, "Q2_K_S", 21, TensorType::Q2_K),
    (Q5_1, "Q5_1", 9, TensorType::Q5_1),
    (Q5_0, "Q5_0", 8, TensorType::Q5_0),
    (Q4_1, "Q4_1", 3, TensorType::Q4_1),
    (Q4_0, "Q4_0", 2, TensorType::Q4_0),
    (IQ4_NL, "IQ4_NL", 25, TensorType::IQ4_NL),
    (IQ4_XS, "IQ4_XS", 30, TensorType::IQ4_XS),
    (IQ3_M, "IQ3_M", 27, TensorType::IQ3_S),
    (IQ3_S, "IQ3_S", 26, TensorType::IQ3_S),
    (IQ3_XS, "IQ3_XS", 22, TensorType::IQ3_S),
    (IQ3_XXS, "IQ3_XXS", 23, TensorType::IQ3_XXS),
    (IQ2_M, "IQ2_M", 29, TensorType::IQ2_S),
    (IQ2_S, "IQ2_S", 28, TensorType::IQ2_XS),
    (IQ2_XS, "IQ2_XS", 20, TensorType::IQ2_XS),
    (IQ2_XXS, "IQ2_XXS", 19, TensorType::IQ2_XXS),
    (IQ1_M, "IQ1_M", 31, TensorType::IQ1_M),
    (IQ1_S, "IQ1_S", 24, TensorType::IQ1_S),
    (TQ2_0, "TQ2_0", 37, TensorType::TQ2_0),
    (TQ1_0, "TQ1_0", 36, TensorType::TQ1_0),
    (MXFP4_MOE, "MXFP4", 38, TensorType::MXFP4),
];

/// Other words for some of them, which llama.cpp's tool knows too.
const ALIASES: [(&str, FileType); 6] = [
    ("MXFP4_MOE", MXFP4_MOE),
    ("Q3_K", Q3_K_M),
    ("Q4_K", Q4_K_M),
    ("Q5_K", Q5_K_M),
    ("FP16", F16),
    ("FP32", F32),
];

impl FileType {
    /// Every type, the most precise first.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.0)
    }

    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Its number in a file, `general.file_type`.
    pub fn number(self) -> u32 {
        self.row().2
    }

    /// The type of most tensors.
    pub fn tensor_type(self) -> TensorType {
        self.row().3
    }

    /// The type of this number in a file.
    pub fn from_number(number: u64) -> Option<Self> {
        ROWS.iter().find(|row| u64::from(row.2) == number).map(|row| row.0)
    }

    fn row(self) -> &'static (FileType, &'static str, u32, TensorType) {
        // Every type has its row, as a test says; the first stands in for the impossible rest.
        ROWS.iter().find(|row| row.0 == self).unwrap_or(&ROWS[0])
    }
}

impl FromStr for FileType {
    type Err = PluginError;

    fn from_str(name: &str) -> Result<Self> {
        let found = ROWS.iter().map(|row| (row.1, row.0)).chain(ALIASES);
        let mut found = found.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, file_type)| file_type).ok_or_else(|| {
            let nearest = ROWS.iter().map(|row| row.1).max_by(|a, b| {
                let likeness = |known: &str| strsim::jaro_winkler(&name.to_ascii_uppercase(), known);
                likeness(a).total_cmp(&likeness(b))
            });
            let names: Vec<&str> = ROWS.iter().map(|row| row.1).collect();
            let what = format!("`{}` is no precision of GGUF files", name.escape_debug());
            PluginError::new(codes::INVALID_OPTION, what).help(format!(
                "did you mean {}? There are {}",
                nearest.unwrap_or_default(),
                names.join(", ")
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_its_name_and_number() {
        for (file_type, name, number, _) in ROWS {
            assert_eq!(name.to_lowercase().parse::<FileType>().unwrap(), file_type);
            assert_eq!(FileType::from_number(number.into()), Some(file_type));
            assert_eq!((file_type.name(), file_type.number()), (name, number));
        }
        let error = "Q4_K_X".parse::<FileType>().unwrap_err();
        assert_eq!(error.code, "invalid-option");
        assert!(error.help.starts_with("did you mean Q4_K_"), "{}", error.help);
    }
}
