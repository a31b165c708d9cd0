//! From a request's sampling parameters to a chain of samplers.

use std::hash::{BuildHasher, Hasher, RandomState};

use pajamas_llama_cpp::{Model, Sampler, Token as Id};
use pajamas_plugin_api::{PluginError, Result, Sampling};

use crate::error::plugin_error;

/// Builds the chain of samplers, in llama.cpp's own order.
///
/// # Errors
/// `invalid-input` naming the parameter that is out of range, or the token that does not exist.
pub(crate) fn sampler(model: &Model, sampling: &Sampling, context_length: u32) -> Result<Sampler> {
    let ranges = [
        ("temperature", sampling.temperature, 0.0, f32::MAX),
        ("top_p", sampling.top_p, 0.0, 1.0),
        ("min_p", sampling.min_p, 0.0, 1.0),
        ("repeat_penalty", sampling.repeat_penalty, f32::MIN_POSITIVE, f32::MAX),
        ("presence_penalty", sampling.presence_penalty, f32::MIN, f32::MAX),
        ("frequency_penalty", sampling.frequency_penalty, f32::MIN, f32::MAX),
    ];
    for (name, value, least, most) in ranges {
        // Written so that NaN fails.
        if !(least..=most).contains(&value) {
            return Err(PluginError::invalid_input(format!("{name} is {value}, which is out of range")));
        }
    }
    let biases: Vec<(Id, f32)> = sampling
        .logit_bias
        .iter()
        .map(|(id, bias)| match bias.is_nan() {
            true => Err(PluginError::invalid_input(format!("the logit bias of token {id} is no number"))),
            false => Ok((model.token(*id).map_err(plugin_error)?, *bias)),
        })
        .collect::<Result<_>>()?;
    let last_n = match sampling.penalty_last_n {
        -1 => context_length,
        n => u32::try_from(n).map_err(|_| {
            PluginError::invalid_input(format!("penalty_last_n is {n}, and must be -1 or more"))
        })?,
    };
    let chain = Sampler::new().logit_bias(model, &biases).penalties(
        model,
        last_n,
        sampling.repeat_penalty,
        sampling.frequency_penalty,
        sampling.presence_penalty,
    );
    if sampling.temperature == 0.0 {
        return Ok(chain.greedy());
    }
    let seed = sampling.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    Ok(chain
        .top_k(sampling.top_k)
        .top_p(sampling.top_p)
        .min_p(sampling.min_p)
        .temperature(sampling.temperature)
        .random((seed ^ (seed >> 32)) as u32))
}
