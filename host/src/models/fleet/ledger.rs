//! The ledger: who holds how much memory on which device.

use std::collections::BTreeMap;

use pajamas_plugin_api::Memory;

use super::event::Bytes;
use crate::config;
use crate::error::Error;

/// Bytes by device of what a plugin estimated or reported.
pub fn by_device(memory: &[Memory]) -> Bytes {
    let mut bytes = Bytes::new();
    for entry in memory {
        let held = bytes.entry(entry.device.clone()).or_default();
        *held = entry.total().saturating_add(*held);
    }
    bytes
}

/// What one has more than another, by device, where it is anything.
pub(super) fn less(all: &Bytes, part: &Bytes) -> Bytes {
    let more = |(device, bytes): (&String, &u64)| {
        let more = bytes.saturating_sub(part.get(device).copied().unwrap_or(0));
        (more > 0).then(|| (device.clone(), more))
    };
    all.iter().filter_map(more).collect()
}

/// Both together, by device.
pub(super) fn more(one: &Bytes, other: &Bytes) -> Bytes {
    let mut sum = one.clone();
    for (device, bytes) in other {
        let known = sum.entry(device.clone()).or_default();
        *known = known.saturating_add(*bytes);
    }
    sum
}

/// The larger of both, by device.
pub(super) fn most(one: &Bytes, other: &Bytes) -> Bytes {
    let mut most = one.clone();
    for (device, bytes) in other {
        let known = most.entry(device.clone()).or_default();
        *known = (*known).max(*bytes);
    }
    most
}

/// All holdings and all limits. A device whose size is not known is not limited.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    limits: config::Memory,
    totals: BTreeMap<String, u64>,
    /// What others hold there, as the device's latest report says.
    others: BTreeMap<String, u64>,
    /// By session: reserved before loading, corrected after.
    holdings: BTreeMap<u64, Bytes>,
}

/// A device and what is held on it, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DeviceUse {
    /// Its id.
    pub device: String,
    /// What models may hold there.
    pub total: u64,
    /// What they hold, or have reserved.
    pub used: u64,
    /// What was held by others when the device was last asked; 0 where it does not say.
    pub others: u64,
}

impl Ledger {
    pub(super) fn new(limits: config::Memory) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(super) fn limit(&mut self, limits: config::Memory) {
        self.limits = limits;
    }

    /// A device has so much memory.
    pub(super) fn device(&mut self, device: String, total: u64) {
        if total > 0 {
            self.totals.insert(device, total);
        }
    }

    /// So much of the devices' memory is free: what neither is nor is held here, others hold. Of a device that says nothing
    /// now, what it said before is no longer known.
    pub(super) fn report(&mut self, free: &Bytes) {
        let others = |(device, free): (&String, &u64)| {
            let used = self.totals.get(device)?.saturating_sub(*free);
            Some((device.clone(), used.saturating_sub(self.held(device))))
        };
        self.others = free.iter().filter_map(others).collect();
    }

    pub(super) fn held(&self, device: &str) -> u64 {
        self.holdings.values().filter_map(|bytes| bytes.get(device)).fold(0, |a, b| a.saturating_add(*b))
    }

    pub(super) fn holding(&self, session: u64) -> Option<&Bytes> {
        self.holdings.get(&session)
    }

    /// Reserves memory for a session, or corrects what it holds.
    pub(super) fn hold(&mut self, session: u64, bytes: Bytes) {
        self.holdings.insert(session, bytes);
    }

    pub(super) fn release(&mut self, session: u64) {
        self.holdings.remove(&session);
    }

    pub(super) fn is_limited(&self, device: &str) -> bool {
        self.totals.contains_key(device)
    }

    /// What models may hold by the configuration.
    fn budget(&self, device: &str) -> Option<u64> {
        self.totals.get(device).map(|total| self.limits.budget(device, *total))
    }

    /// What models may hold now. The reserve is meant for others: only what they hold beyond it is missing.
    pub(super) fn room(&self, device: &str) -> Option<u64> {
        let total = self.totals.get(device)?;
        let others = self.others.get(device).copied().unwrap_or(0);
        self.budget(device).map(|budget| budget.min(total.saturating_sub(others)))
    }

    /// What is missing, by device, for so much more.
    pub(super) fn missing(&self, needs: &Bytes) -> Bytes {
        let missing = |(device, need): (&String, &u64)| {
            let short = self.held(device).saturating_add(*need).saturating_sub(self.room(device)?);
            (short > 0).then(|| (device.clone(), short))
        };
        needs.iter().filter_map(missing).collect()
    }

    /// What is held beyond what may be, by device.
    pub(super) fn excess(&self) -> Bytes {
        let excess = |device: &String| {
            let over = self.held(device).saturating_sub(self.budget(device)?);
            (over > 0).then(|| (device.clone(), over))
        };
        self.totals.keys().filter_map(excess).collect()
    }

    /// Every device whose size is known.
    pub(super) fn devices(&self) -> impl Iterator<Item = DeviceUse> {
        self.totals.keys().map(|device| DeviceUse {
            device: device.clone(),
            total: self.budget(device).unwrap_or(0),
            used: self.held(device),
            others: self.others.get(device).copied().unwrap_or(0),
        })
    }

    /// Why a model can never be loaded as things are: the numbers of the device where it fits least.
    pub(super) fn refusal(&self, model: &str, needs: &Bytes, fixed: &Bytes) -> Option<Error> {
        let over = |device: &String| {
            let room = self.room(device)?.saturating_sub(fixed.get(device).copied().unwrap_or(0));
            let over = needs.get(device)?.saturating_sub(room);
            (over > 0).then_some(over)
        };
        let device =
            needs.keys().filter(|device| over(device).is_some()).max_by_key(|device| over(device))?;
        let words = self.numbers(model, device, needs, fixed);
        Some(
            Error::new("out-of-memory", words).help(
                "choose a smaller precision or context, raise `memory.limit`, or free what others hold",
            ),
        )
    }

    /// What a model needs on a device, and what is there.
    pub(super) fn numbers(&self, model: &str, device: &str, needs: &Bytes, fixed: &Bytes) -> String {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let of = |bytes: &Bytes| mib(bytes.get(device).copied().unwrap_or(0));
        let (need, budget) = (of(needs), mib(self.budget(device).unwrap_or(0)));
        let mut words = format!("`{model}` needs {need} MiB on {device}; models may hold {budget} MiB there");
        if of(fixed) > 0 {
            words += &format!(", of which {} MiB are pinned", of(fixed));
        }
        let (budget, room) = (self.budget(device), self.room(device));
        if room < budget {
            let others = mib(self.others.get(device).copied().unwrap_or(0));
            let left = mib(room.unwrap_or(0));
            words += &format!(", and others hold {others} MiB, which leaves {left} MiB");
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ByteSize;

    fn ledger(reserve: u64) -> Ledger {
        let limits = config::Memory { reserve: ByteSize::bytes(reserve), ..config::Memory::default() };
        let mut ledger = Ledger::new(limits);
        ledger.device("cpu".to_owned(), 100 << 20);
        ledger
    }

    fn cpu(mib: u64) -> Bytes {
        Bytes::from([("cpu".to_owned(), mib << 20)])
    }

    #[test]
    fn what_others_hold_is_what_is_neither_free_nor_ours() {
        let mut ledger = ledger(10 << 20);
        ledger.hold(1, cpu(20));
        ledger.report(&cpu(50));
        let device = ledger.devices().next().unwrap();
        assert_eq!((device.total >> 20, device.used >> 20, device.others >> 20), (90, 20, 30));
        // The reserve of 10 is for them: 20 more are missing.
        assert_eq!(ledger.room("cpu"), Some(70 << 20));
        assert_eq!(ledger.missing(&cpu(50)), Bytes::new());
        assert_eq!(ledger.missing(&cpu(51)), cpu(1));
        // Pages of a file count as free though a model has them: nobody holds less than nothing.
        ledger.report(&cpu(95));
        assert_eq!(ledger.room("cpu"), Some(90 << 20));
        ledger.report(&cpu(50));
        assert!(ledger.room("cpu") < Some(90 << 20));
        ledger.report(&Bytes::new());
        assert_eq!(ledger.room("cpu"), Some(90 << 20), "it says nothing any more");
    }

    #[test]
    fn a_refusal_has_the_numbers() {
        let mut ledger = ledger(0);
        ledger.hold(1, cpu(30));
        assert_eq!(ledger.refusal("m", &cpu(100), &Bytes::new()), None);
        insta::assert_snapshot!(
            ledger.refusal("m", &cpu(101), &Bytes::new()).unwrap(),
            @"`m` needs 101 MiB on cpu; models may hold 100 MiB there [out-of-memory]"
        );
        ledger.report(&cpu(10));
        insta::assert_snapshot!(
            ledger.refusal("m", &cpu(50), &cpu(30)).unwrap(),
            @"`m` needs 50 MiB on cpu; models may hold 100 MiB there, of which 30 MiB are pinned, and others hold 60 MiB, which leaves 40 MiB [out-of-memory]"
        );
    }

    #[test]
    fn a_device_of_unknown_size_is_not_limited() {
        let ledger = Ledger::default();
        assert_eq!(ledger.missing(&cpu(1 << 30)), Bytes::new());
        assert_eq!(ledger.refusal("m", &cpu(1 << 30), &Bytes::new()), None);
    }

    #[test]
    fn parts_of_one_device_are_added_up() {
        let part = |weights| Memory { device: "cpu".into(), weights, kv: 1, scratch: 2 };
        assert_eq!(by_device(&[part(10), part(20)]), Bytes::from([("cpu".to_owned(), 36)]));
        // A plugin may say anything.
        assert_eq!(by_device(&[part(u64::MAX - 3), part(20)])["cpu"], u64::MAX);
    }
}
