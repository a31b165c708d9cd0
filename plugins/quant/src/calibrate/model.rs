//! The model that is calibrated: a GGUF file as it is, a Hugging Face folder converted into a file that goes away again.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pajamas_llama_cpp::gguf::{Header, Value};
use pajamas_llama_cpp::{
    Batch, Context, ContextParams, Decoded, Error, Library, Model, ModelParams, Token, Watch, Weights,
};
use pajamas_plugin_api::{Cancel, HostContext, Level, PluginError, Result, codes};

use crate::convert::{Conversion, OutType, Progress};
use crate::error::{self, codes as own};
use crate::hash;
use crate::source::{Dtype, Source};

/// The folder beside the plugin in which llama.cpp's libraries lie.
const LIBRARY_FOLDER: &str = "llama";
/// Bytes of each end of a file that tell it from others.
const END: u64 = 1 << 20;

/// Opens llama.cpp's libraries beside the plugin.
///
/// # Errors
/// `backend-unavailable`.
pub(super) fn library(host: &HostContext) -> Result<&'static Library> {
    let log = host.clone();
    let opened = Library::open(&host.plugin_dir().join(LIBRARY_FOLDER), move |level, line| {
        // What matters is in the errors of this plugin.
        let level = match level {
            pajamas_llama_cpp::Level::Error => Level::Warn,
            pajamas_llama_cpp::Level::Warn => Level::Info,
            pajamas_llama_cpp::Level::Info => Level::Debug,
            pajamas_llama_cpp::Level::Debug => return,
        };
        log.log(level, line);
    });
    opened.map_err(translated)
}

/// A model's file, which goes away with this if it was made for it.
pub(super) struct File {
    path: PathBuf,
    made: bool,
}

impl Drop for File {
    fn drop(&mut self) {
        if self.made {
            // What cannot be removed is written over by the next run.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl File {
    /// A file with the model's vocabulary: the model itself, or one without weights made of a folder.
    ///
    /// # Errors
    /// Those of reading the source.
    pub fn of_vocabulary(source: &Path, pre: Option<&str>, scratch: &Path) -> Result<Self> {
        Self::of(source, pre, scratch, |conversion, path| {
            let writer = conversion.metadata();
            crate::convert::output::whole(path, |out| {
                writer.write(out, |_, _| Ok(())).map_err(|e| error::unwritable(path, &e))
            })
        })
    }

    /// A file with the whole model, as precise as its source.
    ///
    /// # Errors
    /// Those of reading the source and of the conversion; `cancelled`.
    pub fn of_model(
        source: &Path,
        pre: Option<&str>,
        scratch: &Path,
        cancel: &Cancel,
        progress: &mut Progress<'_>,
    ) -> Result<Self> {
        Self::of(source, pre, scratch, |conversion, path| conversion.write(path, cancel, progress))
    }

    fn of(
        source: &Path,
        pre: Option<&str>,
        scratch: &Path,
        write: impl FnOnce(&Conversion<'_>, &Path) -> Result<u64>,
    ) -> Result<Self> {
        if !source.is_dir() {
            return Ok(Self { path: source.to_owned(), made: false });
        }
        let source = Source::open(source)?;
        let conversion = Conversion::plan(&source, plain(&source), pre)?;
        let made = Self { path: scratch.to_owned(), made: true };
        write(&conversion, &made.path)?;
        Ok(made)
    }

    /// The model's header, checked.
    ///
    /// # Errors
    /// `model-not-found`, `model-invalid`; `unsupported` for one of several files, and for models without a next token.
    pub fn header(&self) -> Result<Header> {
        let header = Header::open(&self.path)
            .and_then(|header| header.check_model().map(|()| header))
            .map_err(|source| translated(Error::File { path: self.path.clone(), source }))?;
        let family = header.architecture().unwrap_or_default();
        let encoder = header.value(&format!("{family}.attention.causal")) == Some(&Value::Bool(false));
        if encoder {
            let what = "reads texts as a whole: importance is collected of models that predict tokens";
            return Err(error::at(codes::UNSUPPORTED, &self.path, what));
        }
        if header.value("split.count").and_then(Value::as_u64).is_some_and(|n| n > 1) {
            return Err(error::at(codes::UNSUPPORTED, &self.path, "is one of several files of a model")
                .help("merge them first, with `llama-gguf-split --merge`"));
        }
        Ok(header)
    }

    /// Loads it.
    ///
    /// # Errors
    /// `out-of-memory`, `model-invalid`, `cancelled`.
    pub fn load(&self, library: &Library, weights: Weights, cancel: &Cancel) -> Result<Arc<Model>> {
        let params = ModelParams { weights, ..ModelParams::default() };
        let model = Model::load(library, &self.path, &params, &mut |_| !cancel.is_cancelled());
        model.map(Arc::new).map_err(translated)
    }
}

/// The plainest type that holds all of a model's numbers.
fn plain(source: &Source) -> OutType {
    let is = |dtype: Dtype| move |view: crate::source::View<'_>| view.info.dtype == dtype;
    match () {
        () if source.weights.iter().any(is(Dtype::F32)) => OutType::F32,
        () if source.weights.iter().all(is(Dtype::F16)) => OutType::F16,
        () => OutType::Bf16,
    }
}

/// A hash that tells a source from others without reading all of it: names, sizes, and the ends of its files.
///
/// # Errors
/// `model-not-found`.
pub(super) fn fingerprint(source: &Path) -> Result<String> {
    let mut files = vec![source.to_owned()];
    if source.is_dir() {
        let entries = fs::read_dir(source).map_err(|e| PluginError::model_unreadable(source, &e))?;
        files = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        files.sort();
    }
    let mut parts = Vec::new();
    for path in files {
        let missing = |e: std::io::Error| PluginError::model_unreadable(&path, &e);
        let mut file = fs::File::open(&path).map_err(missing)?;
        let length = file.metadata().map_err(missing)?.len();
        let (mut start, mut end) = (Vec::new(), Vec::new());
        file.by_ref().take(END).read_to_end(&mut start).map_err(missing)?;
        file.seek(SeekFrom::Start(length.saturating_sub(END))).map_err(missing)?;
        file.take(END).read_to_end(&mut end).map_err(missing)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        parts.push(format!("{name} {length} {}", hash::of(&[&start, &end])));
    }
    Ok(hash::of(&[parts.join("\n").as_bytes()]))
}

/// A context that computes one piece of text after the other.
pub(super) struct Engine {
    context: Context,
    bos: Option<Token>,
}

impl Engine {
    /// For pieces of so many tokens.
    ///
    /// # Errors
    /// `out-of-memory`, `unsupported` for models with an encoder.
    pub fn new(model: Arc<Model>, chunk: u32, threads: u32) -> Result<Self> {
        if model.has_encoder() || !model.has_decoder() {
            let what = "importance is collected of models that predict tokens, without an encoder";
            return Err(PluginError::new(codes::UNSUPPORTED, what));
        }
        let bos = if model.adds_bos() { model.bos() } else { None };
        let params = ContextParams {
            context_length: chunk,
            batch_size: chunk,
            micro_batch_size: chunk,
            // Of every token, or the last layer would see the last one alone.
            outputs: chunk,
            threads,
            threads_batch: threads,
            watched: true,
            ..ContextParams::default()
        };
        Ok(Self { context: Context::new(model, &params).map_err(translated)?, bos })
    }

    /// Computes a piece of text from its beginning, while `watch` looks.
    ///
    /// # Errors
    /// `cancelled`, `internal`.
    pub fn compute(&mut self, tokens: &[Token], cancel: &Cancel, watch: &mut dyn Watch) -> Result<()> {
        self.context.remove(0, 0);
        let mut batch = Batch::new();
        for (position, token) in (0..).zip(tokens) {
            // Each piece begins as a text does.
            let token = if position == 0 { self.bos.unwrap_or(*token) } else { *token };
            batch.add(token, position, 0, true);
        }
        match self.context.decode_watched(&mut batch, &|| cancel.is_cancelled(), watch) {
            Ok(Decoded::Done) => Ok(()),
            Ok(Decoded::Aborted) => Err(PluginError::cancelled()),
            Ok(Decoded::Full) => {
                let what = format!("a piece of {} tokens does not fit the context", tokens.len());
                Err(PluginError::new(codes::INTERNAL, what))
            }
            Err(error) => Err(translated(error)),
        }
    }
}

/// llama.cpp's failures in the words of the plugin API.
pub(super) fn translated(error: Error) -> PluginError {
    let message = error.to_string();
    let (code, help) = match &error {
        Error::LibraryFolder { .. } | Error::NoCpuLibrary { .. } => {
            (own::BACKEND_UNAVAILABLE, "reinstall the quant plugin together with its folder `llama`")
        }
        Error::File { source: pajamas_llama_cpp::gguf::Error::Io(_), .. } => {
            (codes::MODEL_NOT_FOUND, "check the path and the file's permissions")
        }
        Error::File { .. } | Error::Load { .. } => {
            (codes::MODEL_INVALID, "fetch or convert the file again, and compare its size and hash")
        }
        Error::Cancelled => return PluginError::cancelled(),
        Error::OutOfMemory { .. } => {
            (codes::OUT_OF_MEMORY, "calibrate the model in Q8_0: its importance is nearly the same")
        }
        Error::NoVocabulary => (codes::UNSUPPORTED, "take a model that has its vocabulary"),
        Error::UnknownToken { .. } | Error::Text => {
            (codes::INVALID_INPUT, "the text has characters that the model has no token for")
        }
        _ => (codes::INTERNAL, ""),
    };
    PluginError::new(code, message).help(help)
}
