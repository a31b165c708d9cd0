//! Choosing a token under a constraint: what it forbids is taken out before the samplers see the logits.

use pajamas_llama_cpp::{Context, Model, Token};
use pajamas_plugin_api::{PluginError, Result};

use super::Generate;
use super::generate::no_logits;
use crate::constrain::{Guide, Next, Taken};
use crate::error::plugin_error;

/// Tokens that may begin a grammar wrongly before the request is given up.
const MOST_REFUSED: usize = 256;

/// What comes next.
pub(super) enum Choice {
    /// This token; `last` says that the grammar is complete with it, and the answer too.
    Token { token: Token, last: bool },
    /// Nothing: the grammar was complete before.
    End,
}

/// Chooses the next token from the logits at an index of the last batch.
pub(super) fn choose(
    request: &mut Generate,
    context: &mut Context,
    model: &Model,
    index: usize,
) -> Result<Choice> {
    let Some(mut guide) = request.guide.take() else {
        let token = request.sampler.sample(context, index).ok_or_else(no_logits)?;
        return Ok(Choice::Token { token, last: false });
    };
    let choice = guided(request, &mut guide, context, model, index);
    request.guide = Some(guide);
    choice
}

fn guided(
    request: &mut Generate,
    guide: &mut Guide,
    context: &mut Context,
    model: &Model,
    index: usize,
) -> Result<Choice> {
    let mask = match guide.next()? {
        Next::End => return Ok(Choice::End),
        Next::Any => None,
        Next::Only(mask) => Some(mask),
    };
    let logits = context.logits_mut(index).ok_or_else(no_logits)?;
    let mut best: Option<(f32, Token)> = None;
    if let Some(mask) = &mask {
        for (token, logit) in logits.iter_mut().enumerate() {
            if !mask.get(token) {
                *logit = f32::NEG_INFINITY;
            } else if best.is_none_or(|(most, _)| *logit > most) {
                best = Some((*logit, token as Token));
            }
        }
    }
    if mask.is_some() && best.is_none() {
        // The model has no token for the end of what is complete.
        return Ok(Choice::End);
    }
    for _ in 0..MOST_REFUSED {
        let mut token = request.sampler.sample(context, index).ok_or_else(no_logits)?;
        if let (Some(mask), Some((_, best))) = (&mask, best)
            && !mask.get(token as usize)
        {
            // A bias can leave nothing of what is allowed, and rounding can draw what has no probability.
            token = best;
        }
        if model.is_end(token) {
            return Ok(Choice::Token { token, last: false });
        }
        match guide.take(token, &model.piece(token, request.special).map_err(plugin_error)?)? {
            Taken::Goes => return Ok(Choice::Token { token, last: false }),
            Taken::Complete => return Ok(Choice::Token { token, last: true }),
            Taken::Refused => {
                let logits = context.logits_mut(index).ok_or_else(no_logits)?;
                logits[token as usize] = f32::NEG_INFINITY;
            }
        }
    }
    Err(PluginError::invalid_input(format!(
        "the {MOST_REFUSED} most likely tokens begin the grammar with what it does not allow"
    )))
}
