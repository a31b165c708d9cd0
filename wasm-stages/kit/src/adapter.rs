//! Between the generated exports and the [`Stage`] trait.

use std::marker::PhantomData;
use std::sync::Once;

use crate::bindings::exports::pajamas::stage::processing as wit;
use crate::{Error, Files, NamedValue, Result, Stage, Values, logging};

/// The component that a stage becomes.
#[derive(Debug)]
pub struct Component<S>(PhantomData<S>);

impl<S: Stage> wit::Guest for Component<S> {
    type Processor = Processor<S>;

    fn describe() -> wit::Description {
        report_panics();
        S::describe().into()
    }
}

/// The resource that a stage becomes.
#[derive(Debug)]
pub struct Processor<S>(S);

impl<S: Stage> wit::GuestProcessor for Processor<S> {
    fn create(options: String, files: Vec<wit::GrantedFile>) -> Result<wit::Processor> {
        report_panics();
        let files = files.into_iter().map(|file| (file.name, file.content)).collect();
        Ok(wit::Processor::new(Self(create::<S>(&options, files)?)))
    }

    fn run(&self, inputs: Vec<NamedValue>) -> Result<Vec<NamedValue>> {
        self.0.run(Values::from(inputs)).map(Into::into)
    }
}

/// Reads the options and makes the stage. Empty text stands for `{}`.
pub(crate) fn create<S: Stage>(options: &str, files: Files) -> Result<S> {
    let options = if options.trim().is_empty() { "{}" } else { options };
    let parsed = serde_json::from_str(options).map_err(|error| {
        let description = S::describe();
        Error::invalid_option(format!("the options cannot be used: {error}")).with_help(
            match description.option_names().join(", ") {
                names if names.is_empty() => "this stage has no options".into(),
                names => format!("the options are: {names}"),
            },
        )
    })?;
    S::create(parsed, files)
}

/// A panic traps, and a trap has no message: log the message first, so that the host can show it.
fn report_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|info| logging::error(&info.to_string()))));
}
