//! Giving back what a session holds beside its weights while nobody needs it: the extension `pajamas.sleep/1`.

use serde::{Deserialize, Serialize};

use crate::backend::Memory;
use crate::extension::{Extension, call, read, to_json};
use crate::sink::{Cancel, EventSink, TensorSink};
use crate::tensor::NamedTensor;
use crate::{Result, Session};

/// The name of the extension of a [`Session`] that can sleep: what [`Sleeper`] does, as JSON.
pub const SLEEP: &str = "pajamas.sleep/1";

/// What the extension is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
enum Call {
    Estimate,
    Sleep,
    Wake,
}

/// The plugin's side of a session that can sleep.
///
/// Asleep it keeps its weights and gives back its caches and buffers; [`Session::usage`] says what it holds at each time.
/// Methods may be called from any thread and block until they are done. A request that reaches a session asleep wakes
/// it; a host wakes it before, when the memory is there.
pub trait Sleeper: Send + Sync {
    /// What it holds asleep, per device; answers at once, asleep or awake.
    fn estimate(&self) -> Vec<Memory>;

    /// Falls asleep, and says whether it did: not while a request is in work. One that sleeps goes on sleeping. When
    /// this returns the memory is free.
    ///
    /// # Errors
    /// `session-poisoned`.
    fn sleep(&self) -> Result<bool>;

    /// Wakes up, with the options of its load and empty caches. One that is awake stays so.
    ///
    /// # Errors
    /// `out-of-memory`, and it still sleeps; `session-poisoned`.
    fn wake(&self) -> Result<()>;
}

/// The extension as a plugin offers it.
pub struct SleepExtension<S>(pub S);

impl<S: Sleeper> Extension for SleepExtension<S> {
    fn call(
        &self,
        input: &[u8],
        _tensors: &[NamedTensor<'_>],
        _events: &mut dyn EventSink,
        _outputs: &mut dyn TensorSink,
        _cancel: &Cancel,
    ) -> Result<Vec<u8>> {
        match read(SLEEP, input)? {
            Call::Estimate => to_json(&self.0.estimate()),
            Call::Sleep => to_json(&self.0.sleep()?),
            Call::Wake => to_json(&self.0.wake()?),
        }
    }
}

/// The host's side: a session's extension, ready to be called.
pub struct Sleep(Box<dyn Extension>);

impl Sleep {
    /// That of a session; `None` when it cannot sleep.
    pub fn of(session: &dyn Session) -> Option<Self> {
        session.extension(SLEEP).map(Self)
    }

    /// As [`Sleeper::estimate`].
    ///
    /// # Errors
    /// Those of the call; `plugin-protocol` when it is answered with something else.
    pub fn estimate(&self) -> Result<Vec<Memory>> {
        call(&*self.0, SLEEP, &Call::Estimate)
    }

    /// As [`Sleeper::sleep`].
    ///
    /// # Errors
    /// As there; `plugin-protocol`.
    pub fn sleep(&self) -> Result<bool> {
        call(&*self.0, SLEEP, &Call::Sleep)
    }

    /// As [`Sleeper::wake`].
    ///
    /// # Errors
    /// As there; `plugin-protocol`.
    pub fn wake(&self) -> Result<()> {
        call(&*self.0, SLEEP, &Call::Wake)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::extension::ask;
    use crate::{PluginError, Signature};

    #[derive(Clone, Default)]
    struct Cat(Arc<AtomicBool>);

    impl Sleeper for Cat {
        fn estimate(&self) -> Vec<Memory> {
            vec![Memory { device: "cpu".into(), weights: 7, ..Memory::default() }]
        }
        fn sleep(&self) -> Result<bool> {
            self.0.store(true, Ordering::SeqCst);
            Ok(true)
        }
        fn wake(&self) -> Result<()> {
            match self.0.swap(false, Ordering::SeqCst) {
                true => Ok(()),
                false => Err(PluginError::new("session-poisoned", "it never slept")),
            }
        }
    }

    impl Session for Cat {
        fn signature(&self) -> Signature {
            Signature::default()
        }
        fn usage(&self) -> Vec<Memory> {
            Vec::new()
        }
        fn extension(&self, name: &str) -> Option<Box<dyn Extension>> {
            (name == "pajamas.sleep/1")
                .then(|| -> Box<dyn Extension> { Box::new(SleepExtension(self.clone())) })
        }
    }

    #[test]
    fn both_sides_understand_each_other() {
        let cat = Cat::default();
        let sleep = Sleep::of(&cat).unwrap();
        assert_eq!(sleep.estimate().unwrap()[0].weights, 7);
        assert_eq!(sleep.wake().unwrap_err().code, "session-poisoned");
        assert!(sleep.sleep().unwrap() && cat.0.load(Ordering::SeqCst));
        sleep.wake().unwrap();
    }

    /// These bytes are the extension's meaning, and never change.
    #[test]
    fn the_words_are_those_of_the_documentation() {
        let extension = SleepExtension(Cat::default());
        let say = |words: &str| ask::<serde_json::Value>(&extension, SLEEP, words.as_bytes());
        assert_eq!(say(r#"{"do":"estimate"}"#).unwrap()[0]["weights"], 7);
        assert_eq!(say(r#"{"do":"sleep"}"#).unwrap(), true);
        assert_eq!(say(r#"{"do":"wake"}"#).unwrap(), serde_json::Value::Null);
        assert_eq!(say(r#"{"do":"snore"}"#).unwrap_err().code, "invalid-input");
    }
}
