//! llama.cpp's own quantizer, from file to file: what this project's is compared with.

use std::ffi::CString;
use std::path::Path;

use crate::gguf::TensorType;
use crate::log;
use crate::{Error, Result, sys};

/// What [`quantize_file`] is asked for.
#[derive(Debug, Clone, Default)]
pub struct FileQuantization {
    /// llama.cpp's number of the file's type (`llama_ftype`, llama.h).
    pub file_type: u32,
    /// Threads; 0 for one on each processor.
    pub threads: u32,
    /// Every tensor in the type's own, without the mixture.
    pub pure: bool,
    /// The type of the output's tensor.
    pub output: Option<TensorType>,
    /// The type of the embeddings.
    pub embeddings: Option<TensorType>,
    /// Types of the tensors that a pattern is found in.
    pub overrides: Vec<(String, TensorType)>,
    /// Importance of columns, by tensor.
    pub importance: Vec<(String, Vec<f32>)>,
    /// Also from blocks.
    pub requantize: bool,
}

/// Runs llama.cpp's quantizer. Only for files that [`crate::gguf::Header::check_model`] accepts: it asserts the rest.
///
/// # Errors
/// [`Error::Quantize`] with what llama.cpp said.
pub fn quantize_file(from: &Path, to: &Path, wanted: &FileQuantization) -> Result<()> {
    let c_path = |path: &Path| path.to_str().and_then(|p| CString::new(p).ok()).ok_or(Error::Text);
    let c_text = |text: &String| CString::new(text.as_str()).map_err(|_| Error::Text);
    let (from, to) = (c_path(from)?, c_path(to)?);
    let patterns: Vec<CString> = wanted.overrides.iter().map(|(p, _)| c_text(p)).collect::<Result<_>>()?;
    let mut overrides: Vec<sys::llama_model_tensor_override> = patterns
        .iter()
        .zip(&wanted.overrides)
        .map(|(pattern, (_, t))| sys::llama_model_tensor_override {
            pattern: pattern.as_ptr(),
            type_: t.number(),
        })
        .collect();
    overrides
        .push(sys::llama_model_tensor_override { pattern: std::ptr::null(), type_: sys::GGML_TYPE_COUNT });
    let names: Vec<CString> = wanted.importance.iter().map(|(n, _)| c_text(n)).collect::<Result<_>>()?;
    let mut importance: Vec<sys::llama_model_imatrix_data> = names
        .iter()
        .zip(&wanted.importance)
        .map(|(name, (_, data))| sys::llama_model_imatrix_data {
            name: name.as_ptr(),
            data: data.as_ptr(),
            size: data.len(),
        })
        .collect();
    importance.push(sys::llama_model_imatrix_data {
        name: std::ptr::null(),
        data: std::ptr::null(),
        size: 0,
    });
    let number = |t: Option<TensorType>| t.map_or(sys::GGML_TYPE_COUNT, TensorType::number);
    // SAFETY: returns a plain value.
    let mut params = unsafe { sys::llama_model_quantize_default_params() };
    params.nthread = i32::try_from(wanted.threads).unwrap_or(i32::MAX);
    params.ftype = wanted.file_type as _;
    params.pure_ = wanted.pure;
    params.allow_requantize = wanted.requantize;
    params.output_tensor_type = number(wanted.output);
    params.token_embedding_type = number(wanted.embeddings);
    if !wanted.overrides.is_empty() {
        params.tt_overrides = overrides.as_ptr();
    }
    if !wanted.importance.is_empty() {
        params.imatrix = importance.as_ptr();
    }
    // SAFETY: paths and lists end with zeros and outlive the call; llama.cpp catches its own exceptions in it.
    let (status, lines) =
        log::capture(|| unsafe { sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &params) });
    match status {
        0 => Ok(()),
        _ => Err(Error::Quantize { what: log::reasons(&lines) }),
    }
}
