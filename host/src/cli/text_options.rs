//! How text is generated: the options that `generate`, `chat` and `bench` share.

use clap::Args;
use pajamas_plugin_api::Sampling;

use crate::pipeline::Params;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Generation")]
pub struct TextOptions {
    /// The most tokens to generate [default: as many as fit the context]
    #[arg(short = 'n', long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// How adventurous: 0 always takes the likeliest token [default: 0.8]
    #[arg(short, long, value_name = "T")]
    temperature: Option<f32>,
    /// Only the K likeliest tokens; 0 for all [default: 40]
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Only the smallest set of tokens with this probability; 1 for all [default: 0.95]
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Only tokens at least this fraction as likely as the likeliest; 0 for all [default: 0.05]
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Makes tokens that were just used less likely; 1 for no penalty [default: 1]
    #[arg(long, value_name = "X")]
    repeat_penalty: Option<f32>,
    /// Subtracted from tokens that were used at all [default: 0]
    #[arg(long, value_name = "X")]
    presence_penalty: Option<f32>,
    /// Subtracted from tokens for each time they were used [default: 0]
    #[arg(long, value_name = "X")]
    frequency_penalty: Option<f32>,
    /// Equal seeds give equal answers
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Stop at this text, without printing it; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

impl TextOptions {
    pub fn params(&self) -> Params {
        let d = Sampling::default();
        Params {
            max_tokens: self.max_tokens,
            sampling: Sampling {
                temperature: self.temperature.unwrap_or(d.temperature),
                top_k: self.top_k.unwrap_or(d.top_k),
                top_p: self.top_p.unwrap_or(d.top_p),
                min_p: self.min_p.unwrap_or(d.min_p),
                repeat_penalty: self.repeat_penalty.unwrap_or(d.repeat_penalty),
                presence_penalty: self.presence_penalty.unwrap_or(d.presence_penalty),
                frequency_penalty: self.frequency_penalty.unwrap_or(d.frequency_penalty),
                seed: self.seed,
                ..d
            },
            stop: self.stop.clone(),
            ..Params::default()
        }
    }
}
