//! From a conversation to a prompt, by the model's own template.
//!
//! The template comes with the model and is as untrusted as the model: it runs in minijinja without files or
//! includes, and with bounded work.

use std::borrow::Cow;
use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind};
use pajamas_plugin_api::TextSignature;
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};
use serde_json::{Map, Value};

use super::conversation::{Conversation, Message, Tool};
use crate::error::{Error, Result};

/// Instructions a template may execute: hundreds of times what a long conversation needs.
const FUEL: u64 = 20_000_000;

/// The prompt for a conversation; `open` adds the beginning of the assistant's turn.
///
/// # Errors
/// `chat-template-missing` when the model has none, `chat-template-failed` with the template's own words when it
/// refuses (roles that must alternate, for example) or is wrong.
pub fn render(text: &TextSignature, conversation: &Conversation, open: bool) -> Result<String> {
    let template = text.chat_template.as_deref().ok_or_else(|| {
        Error::new("chat-template-missing", "the model has no chat template")
            .help("use `generate` with a prompt of your own, or a model tuned for conversation")
    })?;
    let template = without_generation(template);
    let environment = environment(&template).map_err(failed)?;
    let tools = conversation.callable();
    let context = minijinja::Value::from(Serde(Context {
        variables: &conversation.variables,
        messages: &conversation.messages,
        tools: (!tools.is_empty()).then_some(tools),
        documents: None,
        add_generation_prompt: open,
        bos_token: text.bos_token.as_deref().unwrap_or_default(),
        eos_token: text.eos_token.as_deref().unwrap_or_default(),
    }));
    environment.get_template("chat").and_then(|t| t.render(context)).map_err(failed)
}

/// Templates mark what the assistant said with `{% generation %}`, for training only.
fn without_generation(template: &str) -> Cow<'_, str> {
    if !template.contains("endgeneration") {
        return Cow::Borrowed(template);
    }
    let mut out = template.to_owned();
    for (mark, instead) in [("endgeneration", "endif"), ("generation", "if true")] {
        for (open, close) in [("{% ", " %}"), ("{%- ", " %}"), ("{% ", " -%}"), ("{%- ", " -%}")] {
            out = out.replace(&format!("{open}{mark}{close}"), &format!("{open}{instead}{close}"));
        }
    }
    Cow::Owned(out)
}

/// What a chat template may look at: what transformers gives it.
#[derive(Serialize)]
struct Context<'c> {
    #[serde(flatten)]
    variables: &'c Map<String, Value>,
    messages: &'c [Message],
    tools: Option<&'c [Tool]>,
    documents: Option<()>,
    add_generation_prompt: bool,
    bos_token: &'c str,
    eos_token: &'c str,
}

/// JSON as Python writes it, with a space after each comma and colon: the way models have seen it.
pub fn json(value: &impl Serialize) -> String {
    let mut out = Vec::new();
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced));
    // Only what is no JSON at all, such as a map with lists for keys, cannot be written.
    written.map(|()| String::from_utf8_lossy(&out).into_owned()).unwrap_or_default()
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

fn environment(template: &str) -> std::result::Result<Environment<'_>, minijinja::Error> {
    let mut environment = Environment::new();
    // As transformers sets up Jinja for chat templates.
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    // To Python, and to templates that ask before they count, `None` is no list.
    environment.add_test("iterable", |value: &minijinja::Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: String| -> Result<String, minijinja::Error> {
        // In UTC: a prompt does not depend on where the server stands.
        jiff::fmt::strtime::format(&format, jiff::Timestamp::now())
            .map_err(|e| minijinja::Error::new(ErrorKind::InvalidOperation, e.to_string()))
    });
    // Python's `json.dumps` escapes nothing for HTML, which minijinja's own filter does.
    environment.add_filter(
        "tojson",
        |value: minijinja::Value, options: Kwargs| -> Result<String, minijinja::Error> {
            let indent = options.get::<Option<usize>>("indent")?;
            // Python's own options that change nothing of what models see.
            let _ = (options.get::<Option<bool>>("ensure_ascii"), options.get::<Option<bool>>("sort_keys"));
            options.assert_all_used()?;
            let Some(indent) = indent else { return Ok(json(&value)) };
            let mut out = Vec::new();
            let indent = vec![b' '; indent];
            let formatter = PrettyFormatter::with_indent(&indent);
            value
                .serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))
                .map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()))?;
            Ok(String::from_utf8_lossy(&out).into_owned())
        },
    );
    environment.add_template("chat", template)?;
    Ok(environment)
}

fn failed(error: minijinja::Error) -> Error {
    let detail = error.detail().map_or_else(|| error.to_string(), str::to_owned);
    Error::new(
        "chat-template-failed",
        format!("the model's chat template refuses the conversation: {detail}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'].strip() + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn text(template: Option<&str>) -> TextSignature {
        TextSignature { chat_template: template.map(str::to_owned), ..TextSignature::default() }
    }

    #[test]
    fn renders_as_transformers_does() {
        let messages = [Message::new("system", "Be kind."), Message::new("user", " Hello? ")];
        let prompt = render(&text(Some(CHATML)), &messages.to_vec().into(), true).unwrap();
        assert_eq!(
            prompt,
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn a_template_may_refuse_and_cannot_run_for_ever() {
        let refusing = "{{ raise_exception('roles must alternate') }}";
        let error = render(&text(Some(refusing)), &Conversation::default(), true).unwrap_err();
        assert_eq!(error.code(), "chat-template-failed");
        assert!(error.message().contains("roles must alternate"));
        let endless =
            "{% for a in range(9999) %}{% for b in range(9999) %}{{ a * b }}{% endfor %}{% endfor %}";
        assert_eq!(
            render(&text(Some(endless)), &Conversation::default(), true).unwrap_err().code(),
            "chat-template-failed"
        );
        assert_eq!(
            render(&text(None), &Conversation::default(), true).unwrap_err().code(),
            "chat-template-missing"
        );
    }
}
