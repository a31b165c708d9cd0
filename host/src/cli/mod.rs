//! The command line: one file per command. Each decodes its arguments into a request, calls the host, and
//! encodes what comes back; it decides nothing itself.

mod batch;
mod bench;
mod calibrate;
mod chat;
mod classify;
mod config;
mod convert;
mod detect;
mod draw;
mod embed;
mod generate;
mod hardware;
mod info;
mod iq;
mod keys;
mod output;
mod pictures;
mod plugins;
mod pull;
mod reference;
mod route;
mod serve;
mod session;
mod shell;
mod solving;
mod source;
mod speak;
mod stages;
mod text_options;
mod tokenize;
mod transcribe;
mod validate;
mod verify;
mod vision;
mod watcher;
#[cfg(unix)]
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, LoadOptions, Override};
use crate::error::{Error, Result};

/// Serves models from one host: native backends as plugins, untrusted bytes in WASM stages.
#[derive(Debug, Parser)]
#[command(name = "pajamas", version, about, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// The configuration file [default: ./pajamas.toml, then the user's configuration folder]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    config: Option<PathBuf>,
    /// Set a key of the configuration, for example `--set server.listen=127.0.0.1:9000`
    #[arg(long, global = true, value_name = "KEY=VALUE", help_heading = "Global options")]
    set: Vec<String>,
    /// Print JSON, one object a line
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
    /// Log more to standard error; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    verbose: u8,
}

impl Global {
    fn config(&self) -> Result<Config> {
        self.config_with(None)
    }

    /// The configuration with one more flag laid over it.
    fn config_with(&self, flag: Option<Override>) -> Result<Config> {
        let mut options = LoadOptions { file: self.config.clone(), ..LoadOptions::from_process() };
        for set in &self.set {
            let (key, value) = set.split_once('=').ok_or_else(|| {
                Error::new("invalid-option", format!("--set {set}: there is no `=`"))
                    .help("write --set KEY=VALUE")
            })?;
            options.overrides.push(Override { flag: "--set".into(), key: key.into(), value: value.into() });
        }
        options.overrides.extend(flag);
        Ok(Config::load(&options)?)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Continue a text
    Generate(generate::Generate),
    /// Talk with a model
    Chat(chat::Chat),
    /// Find objects in pictures
    Detect(detect::Detect),
    /// Find objects in pictures, and their outlines
    Segment(detect::Segment),
    /// Find the main object of pictures
    Localize(detect::Localize),
    /// Say what pictures show
    Classify(classify::Classify),
    /// Write down what is said in recordings
    Transcribe(transcribe::Transcribe),
    /// Say a text
    Speak(speak::Speak),
    /// Turn texts or pictures into vectors
    Embed(embed::Embed),
    /// Turn text into tokens
    Tokenize(tokenize::Tokenize),
    /// Serve models over HTTP
    Serve(serve::Serve),
    /// Measure a model on this machine
    Bench(bench::Bench),
    /// Fetch a model from Hugging Face, as far as a conversion reads it
    Pull(pull::Pull),
    /// What a model is: family, attention, experts, parameters, sizes
    Info(info::Info),
    /// Make an artifact out of a model: other formats, fewer bits
    #[command(alias = "quantize")]
    Convert(convert::Convert),
    /// Find out which columns of a model's matrices matter, by a text
    Calibrate(calibrate::Calibrate),
    /// Quantize by importance: calibrate and convert in one
    Iq(iq::Iq),
    /// Make artifacts out of many models, as a file says
    Batch(batch::Run),
    /// Measure how close an artifact's forms are to the model that they were made of
    Validate(validate::Validate),
    /// Compare an artifact with the hashes of its manifest
    Verify(verify::Verify),
    /// What this machine is
    Hardware(hardware::Hardware),
    /// The native plugins: list, inspect, check
    #[command(subcommand)]
    Plugins(plugins::Plugins),
    /// The WASM stages: list, inspect, run
    #[command(subcommand)]
    Stages(stages::Stages),
    /// The configuration: check, explain, schema
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// The choice of models: explain, replay
    #[command(subcommand)]
    Route(route::RouteCommand),
    /// Keys of the server: new
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Completions for a shell
    Completions(shell::Completions),
    /// Manual pages
    Man(shell::Man),
    /// A process that a host starts for one model
    #[cfg(unix)]
    #[command(hide = true)]
    Worker(worker::Worker),
    /// Reference documentation in Markdown, from the code
    #[command(subcommand, hide = true)]
    Reference(reference::Reference),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    #[cfg(unix)]
    if let Command::Worker(worker) = cli.command {
        return worker.run();
    }
    output::start_log(cli.global.verbose, cli.global.json);
    let global = &cli.global;
    let result = match cli.command {
        Command::Generate(c) => c.run(global),
        Command::Chat(c) => c.run(global),
        Command::Detect(c) => c.run(global),
        Command::Segment(c) => c.run(global),
        Command::Localize(c) => c.run(global),
        Command::Classify(c) => c.run(global),
        Command::Transcribe(c) => c.run(global),
        Command::Speak(c) => c.run(global),
        Command::Embed(c) => c.run(global),
        Command::Tokenize(c) => c.run(global),
        Command::Serve(c) => c.run(global),
        Command::Bench(c) => c.run(global),
        Command::Pull(c) => c.run(global),
        Command::Info(c) => c.run(global),
        Command::Convert(c) => c.run(global),
        Command::Calibrate(c) => c.run(global),
        Command::Iq(c) => c.run(global),
        Command::Batch(c) => c.run(global),
        Command::Validate(c) => c.run(global),
        Command::Verify(c) => c.run(global),
        Command::Hardware(c) => c.run(global),
        Command::Plugins(c) => c.run(global),
        Command::Stages(c) => c.run(global),
        Command::Config(c) => c.run(global),
        Command::Route(c) => c.run(global),
        Command::Keys(c) => c.run(global),
        Command::Completions(c) => c.run(),
        Command::Man(c) => c.run(),
        Command::Reference(c) => c.run(),
        #[cfg(unix)]
        Command::Worker(_) => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.code() == output::CLOSED => ExitCode::SUCCESS,
        Err(error) => output::report(&error, global.json),
    }
}
