//! What a process of its own costs: the same tensor through the same session, here and in a worker, in turns.
//!
//! `cargo run --release --example isolation -- examples-backend-minimal-folder`: the packed plugin of
//! `examples/backend-minimal`, which multiplies a tensor by a number.

use std::error::Error;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pajamas::config::{self, BackendChoice, DeviceChoice, Isolation};
use pajamas::pipeline::Outputs;
use pajamas::plugins::{Asked, Plugins};
use pajamas::value::{Tensor, TensorData};
use pajamas_plugin_api::{Cancel, InferRequest, LoadRequest, NamedTensor, PluginError, Session};

/// Floats of a tensor of 5 MB.
const FLOATS: usize = 5_000_000 / 4;
const ROUNDS: u32 = 200;

fn main() -> ExitCode {
    // A worker is this program again.
    if std::env::args().nth(1).as_deref() == Some("worker") {
        return pajamas::cli::main();
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("name the folder that holds the plugin's folder")?;
    let folder = config::LocalPath::new(folder);
    let config = config::Plugins { search: vec![folder], require_hash: false, ..config::Plugins::default() };
    let plugins = Plugins::load(&config);
    let path = std::env::temp_dir().join("pajamas-isolation.scale");
    std::fs::write(&path, "2")?;
    let (file, options) = (&*path, &config::Options::default());
    let (backend, device) = (&BackendChoice::Auto, &DeviceChoice::Auto);
    let choice = plugins.choose(Asked { file, format: "scale", backend, device, options })?;
    let request =
        LoadRequest { path, format: "scale".into(), device: String::new(), options: serde_json::Value::Null };
    let load = |isolation| -> Result<Box<dyn Session>, Box<dyn Error>> {
        let mut progress = |_: f32, _: &str| ControlFlow::Continue(());
        Ok(choice.backend.runner(isolation)?.load(&request, &mut progress, &Cancel::new())?)
    };
    let (here, there) = (load(Isolation::None)?, load(Isolation::Process)?);
    let tensor = Tensor::new(vec![FLOATS as u64], TensorData::F32(vec![1.5; FLOATS].into()))?;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (session, times) in [&here, &there].into_iter().zip(&mut times) {
            times.push(once(&**session, &tensor)?);
        }
    }
    let [here, there] = times.map(median);
    let copy = median((0..ROUNDS).map(|_| copied(tensor.bytes())).collect());
    let (by, than) = if there > here { (there - here, "more") } else { (here - there, "less") };
    println!(
        "5 MB in, 5 MB out, median of {ROUNDS}: {here:.2?} in the host, {there:.2?} in a worker: {by:.2?} {than}; one copy \
         of 5 MB takes {copy:.2?}"
    );
    Ok(())
}

fn once(session: &dyn Session, tensor: &Tensor) -> Result<Duration, PluginError> {
    let x = NamedTensor { name: "x", tensor: tensor.view()? };
    let mut sink = Outputs::new(u64::MAX);
    let begun = Instant::now();
    session.infer(&InferRequest::default(), &[x], &mut sink, &Cancel::new())?;
    Ok(begun.elapsed())
}

/// What the worker's way cannot be faster than: its input is copied once.
fn copied(bytes: &[u8]) -> Duration {
    let mut place = vec![1; bytes.len()];
    let begun = Instant::now();
    std::hint::black_box(&mut place).copy_from_slice(std::hint::black_box(bytes));
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
