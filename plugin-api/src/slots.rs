//! Working at fewer requests at once, or at as many as before: the extension `pajamas.slots/1`.

use serde::{Deserialize, Serialize};

use crate::backend::Memory;
use crate::extension::{Extension, call, read, to_json};
use crate::sink::{Cancel, EventSink, TensorSink};
use crate::tensor::NamedTensor;
use crate::{Result, Session};

/// The name of the extension of a [`Session`] that can give back the room of requests that it does not work at: what [`Slotted`] does,
/// as JSON.
pub const SLOTS: &str = "pajamas.slots/1";

/// What the extension is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
enum Call {
    Describe,
    Resize { slots: u32 },
}

/// At how many requests a session was made to work at the same time, and what that costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotsInfo {
    /// The number that it was loaded with; never more.
    pub slots: u32,
    /// What it holds less for each one less, per device.
    pub each: Vec<Memory>,
}

/// The plugin's side of a session that works at several requests at the same time, each in a slot.
///
/// Methods may be called from any thread, also while requests are in work, and block until they are done. A session that wakes
/// from sleep has all of its slots.
pub trait Slotted: Send + Sync {
    /// What it was made for; answers at once, and always the same.
    fn describe(&self) -> SlotsInfo;

    /// Goes on with this number of slots, and says how many it has now: never fewer than requests in work, than 1, or more than it was
    /// loaded with. No request is lost by it; those in work may take longer. When this returns the memory of the others is free,
    /// and [`Session::usage`] says so.
    ///
    /// # Errors
    /// `out-of-memory`, `session-poisoned`: the session is of no use any more.
    fn resize(&self, slots: u32) -> Result<u32>;
}

/// The extension as a plugin offers it.
pub struct SlotsExtension<S>(pub S);

impl<S: Slotted> Extension for SlotsExtension<S> {
    fn call(
        &self,
        input: &[u8],
        _tensors: &[NamedTensor<'_>],
        _events: &mut dyn EventSink,
        _outputs: &mut dyn TensorSink,
        _cancel: &Cancel,
    ) -> Result<Vec<u8>> {
        match read(SLOTS, input)? {
            Call::Describe => to_json(&self.0.describe()),
            Call::Resize { slots } => to_json(&self.0.resize(slots)?),
        }
    }
}

/// The host's side: a session's extension, ready to be called.
pub struct Slots(Box<dyn Extension>);

impl Slots {
    /// That of a session; `None` when its slots are what they are.
    pub fn of(session: &dyn Session) -> Option<Self> {
        session.extension(SLOTS).map(Self)
    }

    /// As [`Slotted::describe`].
    ///
    /// # Errors
    /// Those of the call; `plugin-protocol` when it is answered with something else.
    pub fn describe(&self) -> Result<SlotsInfo> {
        call(&*self.0, SLOTS, &Call::Describe)
    }

    /// As [`Slotted::resize`].
    ///
    /// # Errors
    /// As there; `plugin-protocol`.
    pub fn resize(&self, slots: u32) -> Result<u32> {
        call(&*self.0, SLOTS, &Call::Resize { slots })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::extension::ask;
    use crate::{PluginError, Signature};

    #[derive(Clone, Default)]
    struct Shelf(Arc<AtomicU32>);

    impl Slotted for Shelf {
        fn describe(&self) -> SlotsInfo {
            SlotsInfo { slots: 4, each: vec![Memory { device: "cpu".into(), kv: 7, ..Memory::default() }] }
        }
        fn resize(&self, slots: u32) -> Result<u32> {
            match slots {
                9 => Err(PluginError::new("out-of-memory", "it was too much")),
                _ => {
                    self.0.store(slots.clamp(1, 4), Ordering::SeqCst);
                    Ok(slots.clamp(1, 4))
                }
            }
        }
    }

    impl Session for Shelf {
        fn signature(&self) -> Signature {
            Signature::default()
        }
        fn usage(&self) -> Vec<Memory> {
            Vec::new()
        }
        fn extension(&self, name: &str) -> Option<Box<dyn Extension>> {
            (name == "pajamas.slots/1")
                .then(|| -> Box<dyn Extension> { Box::new(SlotsExtension(self.clone())) })
        }
    }

    #[test]
    fn both_sides_understand_each_other() {
        let shelf = Shelf::default();
        let slots = Slots::of(&shelf).unwrap();
        let SlotsInfo { slots: all, each } = slots.describe().unwrap();
        assert_eq!((all, each[0].kv), (4, 7));
        assert_eq!((slots.resize(2).unwrap(), shelf.0.load(Ordering::SeqCst)), (2, 2));
        assert_eq!(slots.resize(9).unwrap_err().code, "out-of-memory");
    }

    /// These bytes are the extension's meaning, and never change.
    #[test]
    fn the_words_are_those_of_the_documentation() {
        let extension = SlotsExtension(Shelf::default());
        let say = |words: &str| ask::<serde_json::Value>(&extension, SLOTS, words.as_bytes());
        assert_eq!(say(r#"{"do":"describe"}"#).unwrap()["slots"], 4);
        assert_eq!(say(r#"{"do":"resize","slots":0}"#).unwrap(), 1);
        assert_eq!(say(r#"{"do":"resize"}"#).unwrap_err().code, "invalid-input");
    }
}
