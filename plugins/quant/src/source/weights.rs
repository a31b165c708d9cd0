//! Weights of a folder: one file or many, mapped into memory and never read as a whole.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use pajamas_plugin_api::PluginError;
use serde_json::Value;

use super::safetensors::{self, TensorInfo};
use crate::error::{self, Result, codes};

/// The index that lists which tensor lies in which file.
const INDEX: &str = "model.safetensors.index.json";

/// The tensors of all files.
#[derive(Debug)]
pub struct Weights {
    files: Vec<Shard>,
    tensors: Vec<(usize, TensorInfo)>,
    by_name: HashMap<String, usize>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    map: Mmap,
}

/// A tensor and its bytes.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Name, type and shape.
    pub info: &'a TensorInfo,
    /// Its elements, little-endian, outermost dimension first.
    pub bytes: &'a [u8],
}

impl Weights {
    /// Maps the weights of a folder and checks their headers, and the index against them.
    ///
    /// # Errors
    /// `source-not-found`, `shard-missing`, `index-mismatch`, and the codes of [`safetensors::parse`].
    pub fn open(folder: &Path) -> Result<Self> {
        let index = read_index(folder)?;
        let names = match &index {
            Some(index) => index.values().cloned().collect::<BTreeSet<_>>().into_iter().collect(),
            None => part_names(folder)?,
        };
        let mut weights = Self { files: Vec::new(), tensors: Vec::new(), by_name: HashMap::new() };
        for name in names {
            weights.add(&folder.join(&name), index.is_some())?;
        }
        if let Some(index) = &index {
            weights.check_index(folder, index)?;
        }
        Ok(weights)
    }

    /// Every tensor: file by file in the order of their names, and by name within a file.
    pub fn iter(&self) -> impl Iterator<Item = View<'_>> {
        self.tensors.iter().map(|entry| self.view(entry))
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<View<'_>> {
        self.by_name.get(name).and_then(|i| self.tensors.get(*i)).map(|entry| self.view(entry))
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(|(_, t)| t.end - t.start).sum()
    }

    fn view<'a>(&'a self, (file, info): &'a (usize, TensorInfo)) -> View<'a> {
        // The parser checked both ends against the length of the map.
        let bytes = self.files[*file].map.get(info.start as usize..info.end as usize).unwrap_or(&[]);
        View { info, bytes }
    }

    fn add(&mut self, path: &Path, from_index: bool) -> Result<()> {
        let file = File::open(path).map_err(|e| match from_index {
            true => error::at(codes::SHARD_MISSING, path, format!("{INDEX} names it, but: {e}"))
                .help("download the missing file, or the whole model again"),
            false => error::unreadable(path, &e),
        })?;
        // SAFETY: the map is private to this process and only read. A file that another process cuts short meanwhile
        // ends in a bus error, as for every mapped file; source folders are not written to while they are read.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| error::unreadable(path, &e))?;
        let tensors = safetensors::parse(&map).map_err(|e| {
            error::at(e.code, path, &e).help("the download may be incomplete: compare its size and hash")
        })?;
        for tensor in tensors {
            if let Some(other) = self.by_name.insert(tensor.name.clone(), self.tensors.len()) {
                let other = &self.files.get(self.tensors[other].0).map_or(path, |f| &f.path);
                let what = format!("tensor `{}` is also in {}", tensor.name, other.display());
                return Err(error::at(codes::SAFETENSORS_DUPLICATE, path, what)
                    .help("remove the file that does not belong to the model"));
            }
            self.tensors.push((self.files.len(), tensor));
        }
        self.files.push(Shard { path: path.to_owned(), map });
        Ok(())
    }

    /// The index and the files must tell one story, in both directions.
    fn check_index(&self, folder: &Path, index: &HashMap<String, String>) -> Result<()> {
        let wrong = |what: String| {
            Err(error::at(codes::INDEX_MISMATCH, &folder.join(INDEX), what)
                .help("index and files are of different versions: download both again"))
        };
        let mut listed: Vec<_> = index.iter().collect();
        listed.sort();
        for (tensor, file) in listed {
            let Some(at) = self.by_name.get(tensor) else {
                return wrong(format!("tensor `{tensor}` is not in {file}, nor anywhere else"));
            };
            let shard = &self.files[self.tensors[*at].0];
            if shard.path.file_name().and_then(|n| n.to_str()) != Some(file) {
                return wrong(format!("tensor `{tensor}` is in {}, not in {file}", shard.path.display()));
            }
        }
        match self.tensors.iter().find(|(_, t)| !index.contains_key(&t.name)) {
            Some((file, tensor)) => wrong(format!(
                "tensor `{}` of {} is not listed",
                tensor.name,
                self.files[*file].path.display()
            )),
            None => Ok(()),
        }
    }
}

/// The index, tensor to file; `None` when the folder has none.
fn read_index(folder: &Path) -> Result<Option<HashMap<String, String>>> {
    let path = folder.join(INDEX);
    if !path.is_file() {
        return Ok(None);
    }
    let wrong = |what: &str| error::at(codes::INDEX_MISMATCH, &path, what);
    let text = fs::read(&path).map_err(|e| error::unreadable(&path, &e))?;
    let index: Value = serde_json::from_slice(&text).map_err(|e| wrong(&format!("does not parse: {e}")))?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| wrong("has no object `weight_map`"))?;
    let plain = |file: &str| {
        // An index from elsewhere must not reach outside the folder.
        !file.is_empty() && Path::new(file).file_name().is_some_and(|n| n == file) && !file.contains('\\')
    };
    map.iter()
        .map(|(tensor, file)| match file.as_str().filter(|f| plain(f)) {
            Some(file) => Ok((tensor.clone(), file.to_owned())),
            None => Err(wrong(&format!("gives tensor `{tensor}` the file {file}, which is no plain name"))),
        })
        .collect::<Result<_>>()
        .map(Some)
}

/// Files of weights in a folder without an index.
fn part_names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).map_err(|e| error::unreadable(folder, &e))?;
    let names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let mut parts: Vec<String> =
        names.iter().filter(|n| n.starts_with("model") && n.ends_with(".safetensors")).cloned().collect();
    if parts.is_empty() {
        return Err(no_weights(folder, &names));
    }
    parts.sort();
    Ok(parts)
}

fn no_weights(folder: &Path, names: &[String]) -> PluginError {
    let error = error::at(codes::SOURCE_NOT_FOUND, folder, "holds no model*.safetensors");
    match names.iter().any(|n| n.starts_with("pytorch_model") && n.ends_with(".bin")) {
        true => error.help(
            "its weights are pickled Python objects, which run code when read: take the model's safetensors",
        ),
        false => error.help("give the folder that config.json and the weights lie in"),
    }
}
