//! Checks of generation, embedding and tokens.

use std::sync::mpsc;

use super::model::Subject;
use super::runner::{Finding, Runner, fault, passed, refused, refused_somehow, skipped, within};
use super::sink::{Tensors, Tokens};
use crate::{
    Cancel, EmbedRequest, FinishReason, GenerateRequest, GenerateSummary, PluginError, Prompt, Result,
    Sampling, capability, codes,
};

/// What the model is asked to continue.
const PROMPT: &str = "Hello";
/// The most tokens asked for.
const MOST: u32 = 8;

/// A greedy request for a few tokens.
pub(super) fn request(prompt: Prompt) -> GenerateRequest {
    GenerateRequest {
        max_tokens: Some(MOST),
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        ..GenerateRequest::new(prompt)
    }
}

/// A sink that takes everything.
pub(super) fn sink() -> Tokens {
    Tokens::default()
}

fn generate(subject: &Subject, request: &GenerateRequest) -> Result<(Tokens, GenerateSummary)> {
    let mut tokens = sink();
    let summary = subject.session.generate(request, &mut tokens, &Cancel::new())?;
    Ok((tokens, summary))
}

/// What the session says to the usual request.
pub(super) fn answer(subject: &Subject) -> Result<String> {
    generate(subject, &request(Prompt::text(PROMPT))).map(|(tokens, _)| tokens.text)
}

/// The same, to compare: nothing where the session generates nothing.
pub(super) fn say(subject: &Subject) -> std::result::Result<String, String> {
    match subject.can(capability::GENERATE) {
        true => answer(subject).map_err(fault("generate")),
        false => Ok(String::new()),
    }
}

pub(super) fn check(runner: &mut Runner, subject: &Subject) {
    if subject.can(capability::GENERATE) {
        check_generate(runner, subject);
    } else {
        runner.skip("generates", "the session does not offer it");
    }
    if subject.can(capability::TOKENIZE) {
        let a = subject.clone();
        runner.run("turns text into tokens and back", move || round_trip(&a));
        let a = subject.clone();
        runner.run("refuses a token outside the vocabulary", move || {
            refused(a.session.detokenize(&[outside(&a)]), &[codes::INVALID_INPUT])
        });
    } else {
        runner.skip("turns text into tokens", "the session does not offer it");
    }
    if subject.can(capability::EMBED) {
        let a = subject.clone();
        runner.run("embeds", move || embed(&a));
        let a = subject.clone();
        runner.run("refuses an unknown pooling", move || {
            let request = EmbedRequest { pooling: Some("no-such-pooling".into()), ..embedding(&["a"]) };
            refused_somehow(a.session.embed(&request, &mut Tensors::new(1 << 30), &Cancel::new()))
        });
        let (a, patience) = (subject.clone(), runner.options.patience);
        runner.run("does not embed once cancelled", move || {
            let cancel = Cancel::new();
            cancel.cancel();
            let run = move || a.session.embed(&embedding(&["a", "b"]), &mut Tensors::new(1 << 30), &cancel);
            refused(within(patience, run).ok_or("it still runs")?, &[codes::CANCELLED])
        });
    } else {
        runner.skip("embeds", "the session does not offer it");
    }
}

fn check_generate(runner: &mut Runner, subject: &Subject) {
    let a = subject.clone();
    if !runner.run("generates a few tokens", move || few(&a)) {
        return;
    }
    type Body = fn(&Subject) -> Finding;
    let checks: [(&str, Body); 6] = [
        ("answers alike for one seed", seed),
        ("ends at a stop string and leaves it out", stop),
        ("stops when the sink breaks", breaks),
        ("refuses a prompt over the context", over_context),
        ("refuses a prompt of unknown tokens", |a| {
            refused(generate(a, &request(Prompt::Tokens(vec![outside(a)]))), &[codes::INVALID_INPUT])
        }),
        ("refuses an unknown request option", |a| {
            let mut wrong = request(Prompt::text(PROMPT));
            wrong.options.insert("no-such-option".into(), true.into());
            refused_somehow(generate(a, &wrong))
        }),
    ];
    for (name, body) in checks {
        let a = subject.clone();
        runner.run(name, move || body(&a));
    }
    let (a, patience) = (subject.clone(), runner.options.patience);
    runner.run("stops when cancelled in the middle", move || cancelled_midway(a, patience));
    let (a, patience) = (subject.clone(), runner.options.patience);
    runner.run("does not generate once cancelled", move || {
        let cancel = Cancel::new();
        cancel.cancel();
        let run = move || a.session.generate(&request(Prompt::text(PROMPT)), &mut sink(), &cancel);
        stopped(within(patience, run).ok_or("it still runs")?)
    });
    let (a, threads) = (subject.clone(), runner.options.threads);
    runner.run("generates on several threads at once", move || {
        together(threads, || generate(&a, &request(Prompt::text(PROMPT))).map(drop))
    });
}

fn few(subject: &Subject) -> Finding {
    let (tokens, summary) = generate(subject, &request(Prompt::text(PROMPT))).map_err(fault("generate"))?;
    let usage = summary.usage;
    if usage.completion_tokens > MOST {
        return Err(format!("{} tokens; at most {MOST} were asked for", usage.completion_tokens));
    }
    // Beside its tokens an answer has at most the text held back.
    if tokens.count > usage.completion_tokens.saturating_add(1) {
        return Err(format!("{} tokens came; usage says {}", tokens.count, usage.completion_tokens));
    }
    if usage.prompt_tokens == 0 {
        return Err("`prompt_tokens` is 0".into());
    }
    if summary.finish_reason == FinishReason::Cancelled {
        return Err("finish reason `cancelled`, though nobody cancelled".into());
    }
    if summary.finish_reason == FinishReason::Length && usage.completion_tokens < MOST {
        return Err(format!("finish reason `length` after {} of {MOST} tokens", usage.completion_tokens));
    }
    passed(format!("{:?}, {} tokens", tokens.text, usage.completion_tokens))
}

fn seed(subject: &Subject) -> Finding {
    let sampling = Sampling { seed: Some(7), ..Sampling::default() };
    let request = GenerateRequest { sampling, ..request(Prompt::text(PROMPT)) };
    let (first, _) = generate(subject, &request).map_err(fault("generate"))?;
    let (second, _) = generate(subject, &request).map_err(fault("generate"))?;
    match first.text == second.text {
        true => passed(format!("{:?}", first.text)),
        false => Err(format!("{:?} first, then {:?}", first.text, second.text)),
    }
}

fn stop(subject: &Subject) -> Finding {
    let (free, _) = generate(subject, &request(Prompt::text(PROMPT))).map_err(fault("generate"))?;
    let middle: Vec<char> = free.text.chars().collect();
    let word: String = middle.iter().skip(middle.len() / 3).take(2).collect();
    let Some(at) = free.text.find(&word).filter(|_| !word.is_empty()) else {
        return skipped("the answer is too short to stop in it");
    };
    let request = GenerateRequest { stop: vec![word.clone()], ..request(Prompt::text(PROMPT)) };
    let (cut, summary) = generate(subject, &request).map_err(fault("generate"))?;
    if cut.text != free.text[..at] {
        return Err(format!("{:?} with stop {word:?}; {:?} was expected", cut.text, &free.text[..at]));
    }
    if summary.finish_reason != FinishReason::Stop {
        return Err(format!("finish reason {:?}; `stop` was expected", summary.finish_reason));
    }
    passed(format!("before {word:?}"))
}

fn breaks(subject: &Subject) -> Finding {
    let mut tokens = Tokens { breaks: true, ..Tokens::default() };
    let result = subject.session.generate(&request(Prompt::text(PROMPT)), &mut tokens, &Cancel::new());
    if tokens.count > 1 {
        return Err(format!("{} more tokens after the sink said stop", tokens.count - 1));
    }
    if tokens.count == 0 {
        return skipped("the model had nothing to say");
    }
    stopped(result)
}

/// The sink sets the flag at the first token; one more may be on its way.
fn cancelled_midway(subject: Subject, patience: std::time::Duration) -> Finding {
    let run = move || {
        let cancel = Cancel::new();
        let mut tokens = Tokens { cancels: Some(cancel.clone()), ..Tokens::default() };
        let long = GenerateRequest { max_tokens: None, ignore_eos: true, ..request(Prompt::text(PROMPT)) };
        let result = subject.session.generate(&long, &mut tokens, &cancel);
        (result, tokens.count)
    };
    let Some((result, count)) = within(patience, run) else {
        return Err(format!("it still runs {} s after the flag was set", patience.as_secs_f32()));
    };
    if count > 2 {
        return Err(format!("{} more tokens after the flag was set", count - 1));
    }
    stopped(result)
}

fn stopped(result: Result<GenerateSummary>) -> Finding {
    match result {
        Ok(summary) if summary.finish_reason == FinishReason::Cancelled => passed(""),
        Ok(summary) => Err(format!("finish reason {:?}; `cancelled` was expected", summary.finish_reason)),
        other => refused(other, &[codes::CANCELLED]),
    }
}

fn over_context(subject: &Subject) -> Finding {
    let Some(text) = &subject.signature.text else { return skipped("the model has no context") };
    let prompt = Prompt::Tokens(vec![0; text.context_length as usize + 1]);
    refused(generate(subject, &request(prompt)), &[codes::CONTEXT_LENGTH_EXCEEDED])
}

/// A token id that the model does not have.
fn outside(subject: &Subject) -> u32 {
    subject.signature.text.as_ref().map_or(u32::MAX, |t| t.vocab_size)
}

fn round_trip(subject: &Subject) -> Finding {
    let prompt = Prompt::Text { text: PROMPT.into(), add_special: false, parse_special: false };
    let tokens = subject.session.tokenize(&prompt).map_err(fault("tokenize"))?;
    let ids: Vec<u32> = tokens.iter().map(|t| t.id).collect();
    if let Some(wild) = ids.iter().find(|id| **id >= outside(subject)) {
        return Err(format!("token {wild} is outside the vocabulary"));
    }
    let text = subject.session.detokenize(&ids).map_err(fault("detokenize"))?;
    // Some vocabularies begin every text with a space.
    if text.trim_start() != PROMPT {
        return Err(format!("{PROMPT:?} came back as {text:?}"));
    }
    passed(format!("{} token(s)", ids.len()))
}

fn embedding(texts: &[&str]) -> EmbedRequest {
    let inputs = texts.iter().map(|t| Prompt::text(*t)).collect();
    EmbedRequest { inputs, pooling: None, normalize: true }
}

fn embed(subject: &Subject) -> Finding {
    let size = subject.signature.text.as_ref().map_or(0, |t| u64::from(t.embedding_size));
    let mut sink = Tensors::new(1 << 30);
    subject.session.embed(&embedding(&["a", "b"]), &mut sink, &Cancel::new()).map_err(fault("embed"))?;
    let Some((shape, values)) = sink.floats("embeddings") else {
        return Err("it wrote no f32 tensor `embeddings`".into());
    };
    if shape != [2, size] {
        return Err(format!("`embeddings` has shape {shape:?}; [2, {size}] was expected"));
    }
    for row in values.chunks(size.max(1) as usize) {
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        if (length - 1.0).abs() > 1e-3 {
            return Err(format!("an embedding has length {length}; 1 was asked for"));
        }
    }
    passed(format!("{size} numbers each"))
}

/// Runs `body` a few times on each of several threads at once; the first error is the finding.
pub(super) fn together(threads: usize, body: impl Fn() -> Result<()> + Sync) -> Finding {
    const TIMES: usize = 4;
    let (sender, errors) = mpsc::channel::<PluginError>();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, body) = (sender.clone(), &body);
            scope.spawn(move || {
                for error in (0..TIMES).filter_map(|_| body().err()) {
                    // The receiver outlives the scope.
                    let _ = sender.send(error);
                }
            });
        }
    });
    match errors.try_iter().next() {
        Some(error) => Err(error.to_string()),
        None => passed(format!("{threads} threads, {TIMES} times each")),
    }
}
