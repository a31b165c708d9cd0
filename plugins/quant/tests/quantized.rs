//! Quantized files equal those of llama.cpp's own quantizer, byte for byte: it is run on the file of 32-bit floats, of
//! which ours goes without.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of the functions that clippy knows as tests"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use pajamas_llama_cpp::gguf::{Header, TensorInfo, TensorType, Writer};
use pajamas_llama_cpp::{FileQuantization, quantize_file};
use pajamas_plugin_api::{Cancel, PluginError, Result};
use pajamas_quant::imatrix::Matrix;
use pajamas_quant::quantize::{
    FileType, Folder, GgufFile, Importance, Options, Original, Quantization, Strategy, Wishes,
};
use pajamas_quant::source::Source;
use pajamas_quant::{Conversion, OutType};
use regex::Regex;
use support::{Model, families};
use tempfile::TempDir;

/// A model as a folder and as a file of plain numbers, and places for what is made of them.
struct Bench {
    parent: TempDir,
    folder: PathBuf,
}

impl Bench {
    fn new(model: &Model) -> Self {
        let parent = tempfile::tempdir().unwrap();
        Self { folder: model.write(parent.path()), parent }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.parent.path().join(name)
    }

    fn plain(&self, out_type: OutType) -> PathBuf {
        let path = self.path(&format!("{}.gguf", out_type.name()));
        if !path.exists() {
            let source = Source::open(&self.folder).unwrap();
            let conversion = Conversion::plan(&source, out_type, None).unwrap();
            conversion.write(&path, &Cancel::new(), &mut |_, _, _| Ok(())).unwrap();
        }
        path
    }

    /// What llama.cpp makes of the file.
    fn theirs(&self, from: &Path, wanted: &FileQuantization) -> Vec<u8> {
        let path = self.path("theirs.gguf");
        quantize_file(from, &path, wanted).unwrap();
        fs::read(path).unwrap()
    }

    fn ours(
        &self,
        original: &dyn Original,
        file_type: FileType,
        options: &Options<'_>,
        threads: usize,
    ) -> Vec<u8> {
        let path = self.path("ours.gguf");
        let quantization = Quantization::plan(original, file_type, options).unwrap();
        let mut last = (0, 0);
        let mut progress = |_: &str, done, all| {
            assert!(done > last.0 && done <= all);
            last = (done, all);
            Ok(())
        };
        let bytes = quantization.write(&path, threads, &Cancel::new(), &mut progress).unwrap();
        let written = fs::read(path).unwrap();
        assert_eq!((bytes, quantization.bytes().unwrap()), (written.len() as u64, written.len() as u64));
        written
    }

    fn of_folder(&self, file_type: FileType, options: &Options<'_>, threads: usize) -> Vec<u8> {
        let source = Source::open(&self.folder).unwrap();
        let conversion = Conversion::plan(&source, OutType::F32, None).unwrap();
        self.ours(&Folder::new(&conversion), file_type, options, threads)
    }

    fn of_file(&self, file: &Path, file_type: FileType, options: &Options<'_>) -> Vec<u8> {
        self.ours(&GgufFile::open(file).unwrap(), file_type, options, 2)
    }
}

fn wanted(file_type: FileType) -> FileQuantization {
    FileQuantization { file_type: file_type.number(), threads: 2, ..FileQuantization::default() }
}

/// Where two files begin to differ, in words.
fn compare(what: &str, ours: &[u8], theirs: &[u8]) -> Option<String> {
    if ours == theirs {
        return None;
    }
    let (a, b) = (Header::read(ours, ours.len() as u64), Header::read(theirs, theirs.len() as u64));
    let (Ok(a), Ok(b)) = (a, b) else { return Some(format!("{what}: no files")) };
    let types = |t: &TensorInfo| format!("{} {}", t.name, t.tensor_type);
    let differs = a.tensors.iter().zip(&b.tensors).find(|(a, b)| a != b);
    Some(match differs {
        Some((a, b)) => format!("{what}: ours {}, theirs {}", types(a), types(b)),
        None if a.metadata != b.metadata => format!("{what}: the metadata differs"),
        None => format!("{what}: the data differs"),
    })
}

/// Types that need no importance.
fn of_their_own() -> impl Iterator<Item = FileType> {
    use FileType::*;
    let need = [IQ3_XS, IQ3_XXS, IQ2_M, IQ2_S, IQ2_XS, IQ2_XXS, IQ1_M, IQ1_S, Q2_K_S];
    FileType::all().filter(move |t| !need.contains(t))
}

#[test]
fn every_mixture_equals_llama_cpps() {
    let mut wrong = Vec::new();
    for model in families::wide() {
        let bench = Bench::new(&model);
        let plain = bench.plain(OutType::F32);
        for file_type in of_their_own() {
            let what = format!("{} {}", model.name, file_type.name());
            let theirs = bench.theirs(&plain, &wanted(file_type));
            let options = Options::default();
            wrong.extend(compare(&what, &bench.of_folder(file_type, &options, 3), &theirs));
            if file_type == FileType::Q2_K {
                let ours = bench.of_file(&plain, file_type, &options);
                wrong.extend(compare(&format!("{what} from a file"), &ours, &theirs));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// Rows of 64 and 80 elements: the large blocks divide none, some not even the small ones.
#[test]
fn every_family_equals_llama_cpps_with_its_fallbacks() {
    let mut wrong = Vec::new();
    for model in families::all() {
        // Its experts are four-bit numbers already, which neither quantizes again.
        if model.name == "gpt-oss" {
            continue;
        }
        let bench = Bench::new(&model);
        let plain = bench.plain(OutType::F32);
        for file_type in
            [FileType::Q4_K_M, FileType::Q3_K_S, FileType::Q5_1, FileType::IQ4_XS, FileType::MXFP4_MOE]
        {
            let theirs = bench.theirs(&plain, &wanted(file_type));
            let ours = bench.of_folder(file_type, &Options::default(), 1);
            wrong.extend(compare(&format!("{} {}", model.name, file_type.name()), &ours, &theirs));
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn wishes_are_granted_as_llama_cpp_grants_them() {
    let model = families::wide().remove(0);
    let bench = Bench::new(&model);
    let plain = bench.plain(OutType::F16);
    let mut theirs = wanted(FileType::Q4_K_M);
    theirs.output = Some(TensorType::Q8_0);
    theirs.embeddings = Some(TensorType::Q4_0);
    theirs.overrides =
        vec![("attn_(k|v)".into(), TensorType::Q6_K), ("blk\\.1\\..*".into(), TensorType::F16)];
    let overrides = theirs.overrides.iter().map(|(p, t)| (Regex::new(p).unwrap(), *t)).collect();
    let wishes = Wishes { output: theirs.output, embeddings: theirs.embeddings, overrides, pure: false };
    let options = Options { wishes, ..Options::default() };
    let ours = bench.of_file(&plain, FileType::Q4_K_M, &options);
    assert_eq!(compare("wishes", &ours, &bench.theirs(&plain, &theirs)), None);

    let theirs = FileQuantization { pure: true, ..wanted(FileType::Q3_K_M) };
    let options = Options { wishes: Wishes { pure: true, ..Wishes::default() }, ..Options::default() };
    let ours = bench.of_file(&plain, FileType::Q3_K_M, &options);
    assert_eq!(compare("pure", &ours, &bench.theirs(&plain, &theirs)), None);

    // From blocks to blocks, when that is asked for.
    let eight = bench.plain(OutType::Q8_0);
    let theirs = FileQuantization { requantize: true, ..wanted(FileType::Q4_K_S) };
    let options = Options { requantize: true, ..Options::default() };
    let ours = bench.of_file(&eight, FileType::Q4_K_S, &options);
    assert_eq!(compare("again", &ours, &bench.theirs(&eight, &theirs)), None);
    let error = refused(&GgufFile::open(&eight).unwrap(), FileType::Q4_K_S, &Options::default());
    assert_eq!(error.code, "requantize-refused");
}

fn refused(original: &dyn Original, file_type: FileType, options: &Options<'_>) -> PluginError {
    let planned: Result<Quantization<'_>> = Quantization::plan(original, file_type, options);
    planned.err().unwrap()
}

/// An importance matrix of made-up numbers, written as llama-imatrix does.
fn importance(file: &Path, to: &Path) {
    let header = Header::open(file).unwrap();
    let tensors: Vec<&TensorInfo> = header
        .tensors
        .iter()
        .filter(|t| t.dimensions.len() > 1 && t.name.starts_with("blk.") && !t.name.contains("norm"))
        .collect();
    let mut writer = Writer::empty();
    writer.set("general.type", "imatrix").set("imatrix.datasets", vec!["made up".to_owned()]);
    writer.set("imatrix.chunk_count", 7u32).set("imatrix.chunk_size", 512u32);
    for t in &tensors {
        let matrices = t.dimensions.get(2).copied().unwrap_or(1);
        writer.tensor(&format!("{}.in_sum2", t.name), TensorType::F32, &[t.dimensions[0], matrices]);
        writer.tensor(&format!("{}.counts", t.name), TensorType::F32, &[1, matrices]);
    }
    let data = |t: &TensorInfo, out: &mut dyn std::io::Write| {
        let counts = t.name.ends_with(".counts");
        (0..t.elements()).try_for_each(|i| {
            let value = if counts { 3.0 } else { ((i * 37 + t.name.len() as u64) % 101) as f32 + 0.5 };
            out.write_all(&value.to_le_bytes())
        })
    };
    writer.write(fs::File::create(to).unwrap(), data).unwrap();
}

#[test]
fn with_importance_the_data_is_llama_cpps() {
    let mut wrong = Vec::new();
    // What differs between layers is compared without importance, which the slowest types do not need.
    for model in families::wide_of(1) {
        if model.name == "wide-tied" {
            continue;
        }
        let bench = Bench::new(&model);
        let plain = bench.plain(OutType::F32);
        let path = bench.path("imatrix.gguf");
        importance(&plain, &path);
        let importance = Importance::open(&path).unwrap();
        for file_type in [
            FileType::IQ2_XXS,
            FileType::IQ1_M,
            FileType::IQ3_XS,
            FileType::IQ3_XXS,
            FileType::Q4_0,
            FileType::IQ4_XS,
        ] {
            let mut theirs = wanted(file_type);
            theirs.importance = importance.iter().map(|(n, v)| (n.to_owned(), v.to_vec())).collect();
            let theirs = bench.theirs(&plain, &theirs);
            let options = Options {
                importance: Some(&importance),
                importance_name: "imatrix.gguf".into(),
                ..Options::default()
            };
            let ours = bench.of_folder(file_type, &options, 2);
            // The metadata about the importance comes from llama.cpp's command line tool, not from its library.
            let data = |file: &[u8]| {
                let header = Header::read(file, file.len() as u64).unwrap();
                (header.tensors, file[header.data_offset as usize..].to_vec())
            };
            if data(&ours) != data(&theirs) {
                wrong.extend(compare(&format!("{} {}", model.name, file_type.name()), &ours, &theirs));
            }
            let header = Header::read(&ours[..], ours.len() as u64).unwrap();
            let value = |key: &str| header.value(&format!("quantize.imatrix.{key}")).cloned();
            assert_eq!(value("file").unwrap().as_text(), Some("imatrix.gguf"));
            assert_eq!(value("dataset").unwrap().as_text(), Some("made up"));
            assert_eq!(value("chunks_count").unwrap().as_u64(), Some(7));
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// The types are the strategy's, the rest is llama.cpp's.
#[test]
fn what_a_strategy_writes_is_what_llama_cpp_writes_with_these_types() {
    let mut wrong = Vec::new();
    for model in families::wide() {
        let bench = Bench::new(&model);
        let plain = bench.plain(OutType::F32);
        for file_type in [FileType::Q4_K_M, FileType::Q2_K, FileType::Q3_K_M] {
            let file = GgufFile::open(&plain).unwrap();
            let options = Options { strategy: Strategy::Architecture, ..Options::default() };
            let preset = Quantization::plan(&file, file_type, &Options::default()).unwrap();
            let planned = Quantization::plan(&file, file_type, &options).unwrap();
            assert!(planned.bytes().unwrap() <= preset.bytes().unwrap(), "{}", model.name);
            assert!(planned.notes().iter().any(|note| note.starts_with("architecture: ")));
            let ours = bench.of_file(&plain, file_type, &options);
            let header = Header::read(&ours[..], ours.len() as u64).unwrap();
            let mut theirs = wanted(file_type);
            theirs.overrides = header
                .tensors
                .iter()
                .filter(|t| t.name.starts_with("blk."))
                .map(|t| (format!("^{}$", t.name.replace('.', "\\.")), t.tensor_type))
                .collect();
            let what = format!("{} {}", model.name, file_type.name());
            wrong.extend(compare(&what, &ours, &bench.theirs(&plain, &theirs)));
        }
        let pure = Wishes { pure: true, ..Wishes::default() };
        let both = Options { strategy: Strategy::Architecture, wishes: pure, ..Options::default() };
        let error = refused(&GgufFile::open(&plain).unwrap(), FileType::Q4_K_M, &both);
        assert_eq!(error.code, "invalid-option");
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn experts_that_nothing_reached_stay_precise() {
    let model = families::wide().into_iter().find(|model| model.name == "wide-experts").unwrap();
    let bench = Bench::new(&model);
    let plain = bench.plain(OutType::F32);
    let path = bench.path("imatrix.gguf");
    importance(&plain, &path);
    let mut matrix = Matrix::read(&path).unwrap();
    let of_experts =
        matrix.entries.iter_mut().filter(|(name, _)| name.starts_with("blk.1.") && name.contains("_exps"));
    let zeroed = of_experts.map(|(_, entry)| (entry.counts[3], entry.counts[5]) = (0, 0)).count();
    assert_eq!(zeroed, 3);
    let importance = Importance::of_matrix(matrix);
    let file = GgufFile::open(&plain).unwrap();
    let plan = |file_type: FileType, overrides: Vec<(Regex, TensorType)>| {
        let wishes = Wishes { overrides, ..Wishes::default() };
        let options = Options { wishes, importance: Some(&importance), ..Options::default() };
        let quantization = Quantization::plan(&file, file_type, &options).unwrap();
        let path = bench.path("planned.gguf");
        quantization.write(&path, 2, &Cancel::new(), &mut |_, _, _| Ok(())).unwrap();
        let header = Header::open(&path).unwrap();
        let type_of =
            move |name: &str| header.tensors.iter().find(|t| t.name == name).unwrap().tensor_type.name();
        (quantization.notes().to_vec(), type_of)
    };
    let (notes, type_of) = plan(FileType::IQ2_XXS, Vec::new());
    assert_eq!(type_of("blk.1.ffn_up_exps.weight"), "q4_K");
    assert_eq!(type_of("blk.0.ffn_up_exps.weight"), "iq2_xxs");
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(notes[0].contains("its experts 3, 5"), "{notes:?}");
    // What a person asks for comes first, and types that need no importance stay.
    let (_, type_of) = plan(FileType::IQ2_XXS, vec![(Regex::new("exps").unwrap(), TensorType::IQ2_XXS)]);
    assert_eq!(type_of("blk.1.ffn_up_exps.weight"), "iq2_xxs");
    let (notes, type_of) = plan(FileType::Q4_K_M, Vec::new());
    assert_eq!((type_of("blk.1.ffn_up_exps.weight"), notes.len()), ("q4_K", 0));
}

#[test]
fn what_needs_importance_is_refused_without() {
    let model = families::wide().remove(0);
    let bench = Bench::new(&model);
    let file = GgufFile::open(&bench.plain(OutType::F32)).unwrap();
    for file_type in FileType::all() {
        let planned = Quantization::plan(&file, file_type, &Options::default());
        match of_their_own().any(|t| t == file_type) {
            true => assert!(planned.is_ok(), "{}", file_type.name()),
            false => {
                let error = planned.err().unwrap();
                assert_eq!(error.code, "importance-missing", "{}", file_type.name());
                assert!(error.message.contains("blk.0."), "{error}");
            }
        }
    }
}

#[test]
fn cancelling_and_bad_numbers_leave_nothing() {
    let model = families::wide().remove(0);
    let bench = Bench::new(&model);
    let plain = bench.plain(OutType::F32);
    let out = bench.path("out");
    fs::create_dir(&out).unwrap();
    let write = |file: &GgufFile, threads: usize, cancel: &Cancel, stop: bool| {
        let quantization = Quantization::plan(file, FileType::Q4_K_M, &Options::default()).unwrap();
        let mut told = 0;
        quantization.write(&out.join("a.gguf"), threads, cancel, &mut |_, _, _| {
            told += 1;
            if stop && told == 3 { Err(PluginError::cancelled()) } else { Ok(()) }
        })
    };
    for threads in [1, 3] {
        let file = GgufFile::open(&plain).unwrap();
        let cancel = Cancel::new();
        assert_eq!(write(&file, threads, &cancel, true).unwrap_err().code, "cancelled");
        cancel.cancel();
        assert_eq!(write(&file, threads, &cancel, false).unwrap_err().code, "cancelled");
    }
    // A number that is none, in the last row of a matrix.
    let header = Header::open(&plain).unwrap();
    let tensor = header.tensors.iter().find(|t| t.name == "blk.4.attn_q.weight").unwrap();
    let mut bytes = fs::read(&plain).unwrap();
    let at = (header.data_offset + tensor.offset + tensor.bytes) as usize - 4;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let damaged = bench.path("damaged.gguf");
    fs::write(&damaged, bytes).unwrap();
    for threads in [1, 3] {
        let error = write(&GgufFile::open(&damaged).unwrap(), threads, &Cancel::new(), false).unwrap_err();
        assert_eq!(error.code, "weight-not-finite");
        assert!(error.message.contains("element 65535 of tensor `blk.4.attn_q.weight`"), "{error}");
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
}
