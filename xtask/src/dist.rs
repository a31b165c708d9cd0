//! `cargo xtask dist`: the product as it ships, and how large it is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use pajamas_plugin_api::host::platform;

use crate::product::{self, PLUGINS, Plugin};
use crate::progress;
use crate::project::Project;
use crate::{deps, files, gpu};

/// What to ship.
#[derive(Debug, Args)]
pub struct Options {
    /// The platform, for example linux-x86_64. Only this machine's can be built.
    #[arg(long, value_name = "OS-ARCH")]
    platform: Option<String>,
    /// CPU variants of llama.cpp: `all`, `one` (AVX2 on x86-64, Armv8.2 with dot product on Arm), or the name of one, such as
    /// `sapphirerapids`.
    #[arg(long, value_name = "WHICH", default_value = "all")]
    variants: String,
    /// Also ggml's libraries for these kinds of GPUs, separated by commas; each is built first.
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    gpu: Vec<gpu::Kind>,
    /// Plugins to ship, separated by commas; all by default.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    plugins: Vec<String>,
}

/// The configuration that ships: the repository's own one names the models of the repository.
const CONFIGURATION: &str = include_str!("dist/pajamas.toml");

/// The most that may ship to serve models, unpacked, with every CPU variant and with one.
const LIMITS_MB: (f64, f64) = (80.0, 60.0);

/// The most that all may take together, with the plugins that make artifacts, and what makes GGUF and MLX alone.
const ALL_MB: f64 = 120.0;
const QUANT_MB: f64 = 40.0;

/// Builds, assembles `target/dist/pajamas-VERSION-PLATFORM/`, packs it and prints the sizes.
///
/// # Errors
/// For a platform that cannot be built here, an unknown plugin or variant, and when the result is over its limit.
pub fn run(project: &Project, options: &Options) -> Result<()> {
    let here = platform();
    if let Some(wanted) = options.platform.as_deref().filter(|wanted| *wanted != here) {
        bail!("this machine builds {here}; run `cargo xtask dist` on a {wanted} machine for that platform");
    }
    let plugins = chosen_plugins(&options.plugins)?;
    progress::headline("Packing what ships");
    deps::ensure(project)?;
    product::build(project)?;
    let gpus: Vec<PathBuf> =
        options.gpu.iter().map(|kind| gpu::build(project, *kind)).collect::<Result<_>>()?;

    let version = &project.package("pajamas")?.version;
    let name = format!("pajamas-{version}-{here}");
    let folder = project.target.join("dist").join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    let program = project.program();
    let program_name = program.file_name().context("the program has a name")?;
    files::copy_if_changed(&program, &folder.join(program_name))?;
    let variant = Variants::parse(&options.variants);
    for plugin in &plugins {
        let mut companions = variant.of(plugin.companions(project)?)?;
        // Who serves opens them; a program has each library once.
        if plugin.serves && plugin.companions.is_some() {
            companions.extend(gpus.iter().cloned());
        }
        product::pack(project, plugin, &folder.join("plugins").join(plugin.name), &companions)?;
    }
    files::write_if_changed(&folder.join("pajamas.toml"), CONFIGURATION.as_bytes())?;
    product::copy_licences(project, &folder)?;

    let parts = sizes(&folder, program_name.as_ref(), &options.gpu)?;
    let limit = if variant == Variants::All { LIMITS_MB.0 } else { LIMITS_MB.1 };
    let serving = print_sizes(&parts, limit);
    let archive = folder.with_file_name(format!("{name}.tar.gz"));
    pack(&folder, &name, &archive)?;
    let packed = fs::metadata(&archive)?.len();
    println!("\n{} ({:.1} MB)", project.show(&archive), mb(packed));
    within(serving, limit)
}

/// What the last build comes to with every plugin, and what the plugin `quant` has of it, in MB, with every CPU variant.
///
/// # Errors
/// When one of them is more than may ship, or was not built.
pub fn all_mb(project: &Project) -> Result<(f64, f64)> {
    let program = project.program();
    let mut bytes = fs::metadata(&program).with_context(|| format!("{}", program.display()))?.len();
    let mut quant = 0;
    for plugin in PLUGINS {
        let folder = project.release().join("plugins").join(plugin.name);
        let of_plugin = part(plugin.name, plugin.serves, &folder, |_| true)?.bytes;
        bytes += of_plugin;
        if plugin.name == "quant" {
            quant = of_plugin;
        }
    }
    for (what, mb, limit) in [("everything", mb(bytes), ALL_MB), ("the plugin quant", mb(quant), QUANT_MB)] {
        if mb > limit {
            bail!("{what} has {mb:.1} MB, more than the {limit:.0} MB that may ship");
        }
    }
    Ok((mb(bytes), mb(quant)))
}

/// What the last build serves models with, with every CPU variant, in MB: the program with its stages, and the plugins.
///
/// # Errors
/// When it is more than may ship, or was not built.
pub fn serving_mb(project: &Project) -> Result<f64> {
    let program = project.program();
    let mut bytes = fs::metadata(&program).with_context(|| format!("{}", program.display()))?.len();
    for plugin in PLUGINS.iter().filter(|plugin| plugin.serves) {
        for path in files::all(&project.release().join("plugins").join(plugin.name))? {
            bytes += fs::metadata(&path)?.len();
        }
    }
    let (limit, _) = LIMITS_MB;
    within(mb(bytes), limit)?;
    Ok(mb(bytes))
}

fn within(serving: f64, limit: f64) -> Result<()> {
    if serving > limit {
        bail!("{serving:.1} MB is more than the {limit:.0} MB that may ship to serve models");
    }
    Ok(())
}

fn chosen_plugins(names: &[String]) -> Result<Vec<&'static Plugin>> {
    if names.is_empty() {
        return Ok(PLUGINS.iter().collect());
    }
    let known = || PLUGINS.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
    names
        .iter()
        .map(|name| {
            PLUGINS
                .iter()
                .find(|p| p.name == name)
                .with_context(|| format!("there is no plugin {name:?}; there are {}", known()))
        })
        .collect()
}

/// Which builds of ggml's CPU kernels ship.
#[derive(Debug, PartialEq, Eq)]
enum Variants {
    All,
    One(String),
}

impl Variants {
    fn parse(text: &str) -> Self {
        match text {
            "all" => Self::All,
            "one" if cfg!(target_arch = "x86_64") => Self::One("haswell".into()),
            "one" => Self::One("armv8.2_2".into()),
            name => Self::One(name.into()),
        }
    }

    /// Those of a plugin's libraries that ship.
    fn of(&self, companions: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
        let mut variants = Vec::new();
        let mut kept = Vec::new();
        for path in companions {
            let variant = cpu_variant(product::file_name(&path)?).map(str::to_owned);
            match (self, &variant) {
                (Self::One(wanted), Some(variant)) if variant != wanted => {}
                _ => kept.push(path),
            }
            variants.extend(variant);
        }
        // Where there is one build for the whole platform, nothing can be chosen.
        match self {
            Self::One(wanted) if !variants.is_empty() && !variants.contains(wanted) => {
                bail!("there is no CPU variant {wanted:?}; there are {}", variants.join(", "))
            }
            _ => Ok(kept),
        }
    }
}

/// `haswell` of `libggml-cpu-haswell.so`.
fn cpu_variant(file: &str) -> Option<&str> {
    let (name, _) = file.rsplit_once('.')?;
    name.trim_start_matches("lib").strip_prefix("ggml-cpu-")
}

/// One line of the table.
struct Part {
    name: String,
    serves: bool,
    bytes: u64,
}

fn sizes(folder: &Path, program: &Path, gpus: &[gpu::Kind]) -> Result<Vec<Part>> {
    let mut parts = vec![part("host and stages", true, folder, |path| path == program)?];
    let of_gpu =
        |path: &Path, kind: gpu::Kind| path.file_name().is_some_and(|name| *name == *kind.file_name());
    for plugin in PLUGINS {
        let below = Path::new("plugins").join(plugin.name);
        let name = format!("plugin {}", plugin.name);
        let belongs = |path: &Path| path.starts_with(&below) && !gpus.iter().any(|kind| of_gpu(path, *kind));
        parts.push(part(&name, plugin.serves, folder, belongs)?);
    }
    // The limit is that of what every machine needs.
    for kind in gpus {
        parts.push(part(&format!("for {}", kind.name()), false, folder, |path| of_gpu(path, *kind))?);
    }
    Ok(parts)
}

fn part(name: &str, serves: bool, folder: &Path, belongs: impl Fn(&Path) -> bool) -> Result<Part> {
    let mut bytes = 0;
    for path in files::all(folder)? {
        if belongs(path.strip_prefix(folder)?) {
            bytes += fs::metadata(&path)?.len();
        }
    }
    Ok(Part { name: name.to_owned(), serves, bytes })
}

/// Prints the table and returns the sum of what serves, in MB.
fn print_sizes(parts: &[Part], limit: f64) -> f64 {
    println!();
    for part in parts.iter().filter(|part| part.bytes > 0) {
        println!("  {:<16} {:>7.1} MB", part.name, mb(part.bytes));
    }
    let serving = mb(parts.iter().filter(|part| part.serves).map(|part| part.bytes).sum());
    println!("  {:<16} {serving:>7.1} MB  of {limit:.0} MB allowed", "what serves");
    serving
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Packs a folder under `name`, always the same bytes for the same files.
fn pack(folder: &Path, name: &str, archive: &Path) -> Result<()> {
    let temporary = archive.with_extension("partial");
    let file = File::create(&temporary).with_context(|| format!("writing {}", temporary.display()))?;
    let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    tar.mode(tar::HeaderMode::Deterministic);
    for path in files::all(folder)? {
        let inside: PathBuf = Path::new(name).join(path.strip_prefix(folder)?);
        tar.append_path_with_name(&path, inside)?;
    }
    tar.into_inner()?.finish()?.sync_all()?;
    fs::rename(&temporary, archive)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_variant_drops_the_others_and_nothing_else() {
        let built = || {
            ["libggml-base.so.0", "libggml-cpu-haswell.so", "libggml-cpu-zen4.so"].map(PathBuf::from).to_vec()
        };
        let of = |which: &str| Variants::parse(which).of(built());
        assert_eq!(of("all").unwrap(), built());
        assert_eq!(of("zen4").unwrap(), ["libggml-base.so.0", "libggml-cpu-zen4.so"].map(PathBuf::from));
        assert!(of("zen5").unwrap_err().to_string().contains("haswell, zen4"));
        let whole = vec![PathBuf::from("libggml-cpu.so")];
        assert_eq!(Variants::parse("zen4").of(whole.clone()).unwrap(), whole);
    }

    #[test]
    fn an_unknown_plugin_is_refused_with_the_known_ones() {
        let error = chosen_plugins(&["gguff".into()]).err().unwrap().to_string();
        assert!(error.contains("gguf") && error.contains("onnx"), "{error}");
    }

    #[test]
    fn the_same_files_pack_to_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("in");
        files::write_if_changed(&folder.join("b/c"), b"two").unwrap();
        files::write_if_changed(&folder.join("a"), b"one").unwrap();
        let (first, second) = (dir.path().join("1.tar.gz"), dir.path().join("2.tar.gz"));
        pack(&folder, "x", &first).unwrap();
        pack(&folder, "x", &second).unwrap();
        assert_eq!(fs::read(first).unwrap(), fs::read(second).unwrap());
    }
}
