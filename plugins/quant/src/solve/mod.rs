//! The strategy `solve`: types of tensors chosen by what each was measured to cost, under a size or a divergence.
//!
//! How much the model's outputs suffer when one tensor has fewer bits is measured ([`sensitivity`]) on one part of a text;
//! the types that suffer least within the size are found ([`knapsack`]), around which it is measured again; then the file is made, and
//! the preset of its size, and both are compared with the original on a part of the text that nothing was chosen by. What
//! is closer is kept ([`judge`]).

mod judge;
mod knapsack;
mod memory;
mod room;
mod search;
mod sensitivity;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pajamas_llama_cpp::Library;
use pajamas_llama_cpp::gguf::TensorType;
use pajamas_plugin_api::{Cancel, HostContext, PluginError, Result};
use serde_json::{Value, json};

use crate::calibrate::{Part, Text};
use crate::error::{self, codes as own};
use crate::evaluate::{self, Estimate, Pieces, Reference};
use crate::quantize::{FileType, Options, Original, Quantization};
use judge::{Kept, judge};
use memory::Remembering;
use room::Room;
use search::{Method, Search};

/// The text where none is named: a domain that the plugin brings along.
const DOMAIN: &str = "general";
/// Windows of text that are measured on, and that judge, unless something else is asked for.
const WINDOWS: usize = 8;
const JUDGING: usize = 24;
/// Tries to meet a divergence, and how far below it is near enough.
const TRIES: usize = 6;
const NEAR: f64 = 0.85;
/// Shares of the work: up to where the model is copied and read, and where its tensors were measured.
const READ: f32 = 0.05;
const MEASURED: f32 = 0.9;

/// What is to be met.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) enum Goal {
    /// The size of the precision's preset.
    #[default]
    Preset,
    /// A file of at most so many bytes.
    Bytes(u64),
    /// A divergence of at most so many nats, in as few bytes as it takes.
    Divergence(f64),
}

/// How types are solved for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub goal: Goal,
    /// Files of text; their last fifth judges.
    pub texts: Vec<PathBuf>,
    /// Domains of text; their held-out documents judge.
    pub domains: Vec<String>,
    /// Windows to measure on.
    pub windows: Option<usize>,
    /// Whether every type of every tensor is measured, or one of each.
    pub every: bool,
    pub threads: usize,
}

/// What is told how far it is (0 to 1), and a few words; its error stops the work.
pub(crate) type Told<'t> = dyn FnMut(f32, &str) -> Result<()> + 't;

/// A model to solve for.
pub(crate) struct Solve<'a> {
    pub host: &'a HostContext,
    pub original: &'a dyn Original,
    pub file_type: FileType,
    pub options: &'a Options<'a>,
    pub settings: &'a Settings,
}

/// What was made.
pub(crate) struct Solved {
    /// Bytes of the file.
    pub bytes: u64,
    /// How many tensors are of each type, and the bits of a weight.
    pub types: (BTreeMap<&'static str, u64>, f64),
    /// What a person should know.
    pub notes: Vec<String>,
    /// What was measured, chosen and kept, for the metadata.
    pub report: Value,
}

/// A folder of files of the run, which goes away with it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is written over by the next run. A run that is killed leaves it, with what was measured.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what a run that solved for the file `path`, and was killed, left.
pub(crate) fn forget(path: &Path) {
    // Most of the time there is nothing.
    let _ = fs::remove_dir_all(scratch(path));
}

fn scratch(path: &Path) -> PathBuf {
    path.with_file_name(".solve")
}

impl Scratch {
    fn beside(path: &Path) -> Result<Self> {
        let folder = scratch(path);
        fs::create_dir_all(&folder).map_err(|e| error::unwritable(&folder, &e))?;
        Ok(Self(folder))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// What the run works with.
struct Bench<'a> {
    scratch: &'a Scratch,
    library: &'a Library,
    held_out: &'a Reference,
    cancel: &'a Cancel,
}

/// A file that was made of some types.
struct Made {
    path: PathBuf,
    bytes: u64,
    types: (BTreeMap<&'static str, u64>, f64),
    chosen: Vec<TensorType>,
    kld: Estimate,
}

impl Solve<'_> {
    /// The most bytes that the file can have, without a look at the weights.
    ///
    /// # Errors
    /// Those of planning; `target-unreachable`.
    pub fn most_bytes(&self) -> Result<u64> {
        let preset = self.preset(self.file_type)?;
        let room = Room::of(self, &preset)?;
        Ok(match self.settings.goal {
            Goal::Preset => preset.bytes()?,
            Goal::Bytes(bytes) => bytes.min(room.constant + room.most),
            Goal::Divergence(_) => room.constant + room.most,
        })
    }

    /// Solves, and writes the file: whole, or not at all. What a run of the same identity had measured before it was killed is
    /// not measured again.
    ///
    /// # Errors
    /// `target-unreachable`, `text-too-short`, `domain-not-found`, `model-not-found` of a text, `backend-unavailable`; those of
    /// [`Quantization`] and of loading models; `cancelled`.
    pub fn run(&self, path: &Path, identity: &str, told: &mut Told<'_>, cancel: &Cancel) -> Result<Solved> {
        let most = self.most_bytes()?;
        let (train, judging) = self.texts()?;
        let library = evaluate::library(self.host)?;
        let scratch = Scratch::beside(path)?;

        told(0.0, "a copy in 32 bits")?;
        let copy = scratch.path("original.gguf");
        let plain = Options { requantize: self.options.requantize, ..Options::default() };
        let copied = Quantization::plan(self.original, FileType::F32, &plain)?;
        copied.write(&copy, self.settings.threads, cancel, &mut |_, done, all| {
            told(READ * 0.5 * done as f32 / all.max(1) as f32, "a copy in 32 bits")
        })?;
        told(READ * 0.5, "what the original makes of the text")?;
        let threads = u32::try_from(self.settings.threads).unwrap_or(1).max(1);
        let read = |text: &Text, most: usize, name: &str| {
            let pieces = Pieces { text: &text.text, name: &text.name, most };
            Reference::of(library, &copy, &pieces, scratch.path(name), threads, cancel)
        };
        let held_out = read(&judging, JUDGING, "held-out.logits")?;
        let reference = read(&train, self.settings.windows.unwrap_or(WINDOWS), "logits")?;
        told(READ, "")?;

        let preset = self.preset(self.file_type)?;
        let room = Room::of(self, &preset)?;
        let bench = Bench { scratch: &scratch, library, held_out: &held_out, cancel };
        let mut patient = sensitivity::Copy::open(
            self.original,
            self.options.importance,
            (library, &reference),
            &copy,
            self.settings.threads,
            cancel,
        )?;
        // Threads add up in another order, and what is measured must not depend on where a run was killed.
        let identity = format!("{identity} {threads}");
        let mut patient = Remembering::open(&mut patient, &scratch.path("measured"), &identity)?;
        let remembered = patient.remembered();
        let budget = most.saturating_sub(room.constant);
        let method = if self.settings.every { Method::Every } else { Method::One };
        let mut search = Search::new(self.original, &room.ladders, &mut patient, method);
        let share = MEASURED - READ;
        search.measure(&mut |done, what| told(READ + share * done, what))?;
        let (solved, limit, predicted) = match self.settings.goal {
            Goal::Divergence(goal) => self.meet(goal, &search, (&preset, &room), &bench, told)?,
            _ => {
                let types = search.within(budget, &mut |done, what| told(READ + share * done, what))?;
                told(MEASURED, "what was solved")?;
                let made = self.make(&room.with(&preset, &types), self.file_type, "solved", &bench)?;
                (made, most, search.predicted())
            }
        };

        told(0.95, "the preset")?;
        let rival = self.rival(limit)?;
        let preset =
            rival.map(|of| self.make(self.preset(of)?.chosen(), of, "preset", &bench)).transpose()?;
        let verdict = judge(solved.kld, preset.as_ref().map(|made| made.kld));
        let of_preset = rival.zip(preset.as_ref()).map(|(of, made)| (of, made.bytes, made.kld));
        let kept = match (verdict.kept, preset) {
            (Kept::Preset, Some(preset)) => preset,
            _ => solved,
        };
        fs::rename(&kept.path, path).map_err(|e| error::unwritable(path, &e))?;
        told(1.0, "")?;

        let names = self.original.tensors().iter().zip(&kept.chosen);
        let free = |at: usize| room.ladders.iter().any(|ladder| ladder.tensor == at);
        let types: serde_json::Map<String, Value> = names
            .enumerate()
            .filter(|(at, _)| free(*at))
            .map(|(_, (tensor, to))| (tensor.name.clone(), to.name().into()))
            .collect();
        let report = json!({
            "kept": verdict.kept,
            "why": verdict.why,
            "goal": match self.settings.goal {
                Goal::Divergence(kld) => json!({ "kld": kld }),
                _ => json!({ "bytes": most }),
            },
            "predicted_kld": predicted,
            "measured_kld": verdict.measured_kld,
            "preset": of_preset.map(|(of, bytes, kld)| json!({
                "precision": of.name(), "bytes": bytes, "kld": kld,
            })),
            "sensitivity": search.method().name(),
            "measurements": search.measurements(),
            "remembered": remembered,
            "rounds": search.rounds(),
            "sensitivities": search.sensitivities(self.original),
            "text": {
                "name": train.name, "sha256": train.sha256, "tokens": reference.tokens(),
                "held_out_sha256": judging.sha256, "held_out_tokens": held_out.tokens(),
            },
            "types": types,
        });
        let notes = notes(&verdict, rival, &held_out);
        Ok(Solved { bytes: kept.bytes, types: kept.types, notes, report })
    }

    /// The preset of a precision.
    fn preset(&self, of: FileType) -> Result<Quantization<'_>> {
        Quantization::plan(self.original, of, self.options)
    }

    /// The text to measure on, and the one that judges.
    fn texts(&self) -> Result<(Text, Text)> {
        let general = [DOMAIN.to_owned()];
        let Settings { texts, domains, .. } = self.settings;
        let domains = if texts.is_empty() && domains.is_empty() { &general[..] } else { domains };
        let part = |part| Text::part(texts, domains, part);
        Ok((part(Part::Train)?, part(Part::HeldOut)?))
    }

    /// Makes a file of these types, and measures it.
    fn make(&self, types: &[TensorType], of: FileType, name: &str, bench: &Bench<'_>) -> Result<Made> {
        let options = Options { types: Some(types.to_vec()), ..self.options.clone() };
        let quantization = Quantization::plan(self.original, of, &options)?;
        let path = bench.scratch.path(&format!("{name}.gguf"));
        let bytes = quantization.write(&path, self.settings.threads, bench.cancel, &mut |_, _, _| Ok(()))?;
        let kld = bench.held_out.compare(bench.library, &path, bench.cancel)?.kld;
        Ok(Made {
            path,
            bytes,
            types: quantization.types(),
            chosen: quantization.chosen().to_vec(),
            kld: Estimate { value: kld.mean, error: kld.error },
        })
    }

    /// The smallest file that a few tries find whose measured divergence is within the goal, and its size: what is asked of
    /// the prediction is moved by how far it was off.
    fn meet(
        &self,
        goal: f64,
        search: &Search<'_>,
        (preset, room): (&Quantization<'_>, &Room),
        bench: &Bench<'_>,
        told: &mut Told<'_>,
    ) -> Result<(Made, u64, Option<f64>)> {
        let (mut asked, mut best): (f64, Option<(Made, f64)>) = (goal, None);
        let mut closest = f64::INFINITY;
        for number in 0..TRIES {
            told(MEASURED, &format!("try {} of {TRIES}", number + 1))?;
            // Where nothing loses as little, what loses least may do all the same.
            let types = search.losing(asked).or_else(|| search.best());
            let types = types.unwrap_or_default();
            let predicted = search.loss(&types);
            let types = room.with(preset, &types);
            let made = self.make(&types, self.file_type, &format!("solved-{number}"), bench)?;
            let kld = made.kld.value;
            closest = closest.min(kld);
            if kld <= goal && best.as_ref().is_none_or(|(best, _)| made.bytes < best.bytes) {
                best = Some((made, predicted));
            } else {
                let _ = fs::remove_file(&made.path);
            }
            if (NEAR * goal..=goal).contains(&kld) {
                break;
            }
            // Somewhat below, for what is just above the goal does not meet it.
            let next = asked * (0.95 * goal / kld.max(f64::MIN_POSITIVE)).clamp(0.05, 20.0);
            if !next.is_finite() || next == asked {
                break;
            }
            asked = next;
        }
        let of_size = |(made, predicted): (Made, f64)| {
            let bytes = made.bytes;
            (made, bytes, Some(predicted))
        };
        best.map(of_size).ok_or_else(|| {
            let what = format!(
                "no types that were tried come to a KL divergence of {goal}: the closest have {closest:.6}"
            );
            PluginError::new(own::TARGET_UNREACHABLE, what).help("allow a larger one with `target_kld`")
        })
    }

    /// The preset that what was solved is compared with: the precision's own where its size was the goal, else the largest one that
    /// is no larger.
    fn rival(&self, limit: u64) -> Result<Option<FileType>> {
        if self.settings.goal == Goal::Preset {
            return Ok(Some(self.file_type));
        }
        let bytes = |of: FileType| self.preset(of).and_then(|preset| preset.bytes()).ok();
        let fitting = FileType::all().filter_map(|of| Some((bytes(of).filter(|b| *b <= limit)?, of)));
        Ok(fitting.max_by_key(|(bytes, _)| *bytes).map(|(_, of)| of))
    }
}

fn notes(verdict: &judge::Verdict, rival: Option<FileType>, held_out: &Reference) -> Vec<String> {
    let of = |kld: &Estimate| format!("{:.5} ± {:.5}", kld.value, kld.error);
    let solved = format!("solve: KL divergence {}", of(&verdict.measured_kld));
    let preset = match (&verdict.preset_kld, rival) {
        (Some(kld), Some(rival)) => format!(", the preset's ({}) {}", rival.name(), of(kld)),
        _ => String::new(),
    };
    let kept = match verdict.kept {
        Kept::Solve => "solve is kept",
        Kept::Preset => "the preset is kept",
    };
    vec![
        format!("{solved}{preset}, on {} tokens held out", held_out.tokens()),
        format!("solve: {kept}: {}", verdict.why),
    ]
}
