//! From a conversation to a prompt, by the model's own template.
//!
//! The template comes with the model and is as untrusted as the model: it runs in minijinja without files or
//! includes, and with bounded work.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind};
use pajamas_plugin_api::TextSignature;
use serde::Serialize;

use super::request::Message;
use crate::error::{Error, Result};

/// Instructions a template may execute: hundreds of times what a long conversation needs.
const FUEL: u64 = 20_000_000;

/// The prompt for a conversation, with the beginning of the assistant's turn.
///
/// # Errors
/// `chat-template-missing` when the model has none, `chat-template-failed` with the template's own words when it
/// refuses (roles that must alternate, for example) or is wrong.
pub fn render(text: &TextSignature, messages: &[Message]) -> Result<String> {
    let template = text.chat_template.as_deref().ok_or_else(|| {
        Error::new("chat-template-missing", "the model has no chat template")
            .help("use `generate` with a prompt of your own, or a model tuned for conversation")
    })?;
    let environment = environment(template).map_err(failed)?;
    let context = minijinja::Value::from(Serde(Context {
        messages,
        add_generation_prompt: true,
        bos_token: text.bos_token.as_deref().unwrap_or_default(),
        eos_token: text.eos_token.as_deref().unwrap_or_default(),
    }));
    environment.get_template("chat").and_then(|t| t.render(context)).map_err(failed)
}

/// What a chat template may look at.
#[derive(Serialize)]
struct Context<'c> {
    messages: &'c [Message],
    add_generation_prompt: bool,
    bos_token: &'c str,
    eos_token: &'c str,
}

fn environment(template: &str) -> std::result::Result<Environment<'_>, minijinja::Error> {
    let mut environment = Environment::new();
    // As transformers sets up Jinja for chat templates.
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_filter(
        "tojson",
        |value: minijinja::Value, options: Kwargs| -> Result<String, minijinja::Error> {
            // Python's `json.dumps` escapes nothing for HTML, which minijinja's own filter does.
            let wide = options.get::<Option<usize>>("indent")?.is_some();
            let json =
                if wide { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            json.map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()))
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
        let prompt = render(&text(Some(CHATML)), &messages).unwrap();
        assert_eq!(
            prompt,
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn a_template_may_refuse_and_cannot_run_for_ever() {
        let refusing = "{{ raise_exception('roles must alternate') }}";
        let error = render(&text(Some(refusing)), &[]).unwrap_err();
        assert_eq!(error.code(), "chat-template-failed");
        assert!(error.message().contains("roles must alternate"));
        let endless =
            "{% for a in range(9999) %}{% for b in range(9999) %}{{ a * b }}{% endfor %}{% endfor %}";
        assert_eq!(render(&text(Some(endless)), &[]).unwrap_err().code(), "chat-template-failed");
        assert_eq!(render(&text(None), &[]).unwrap_err().code(), "chat-template-missing");
    }
}
