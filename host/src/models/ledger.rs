//! Who holds how much memory on which device, and who gives way. Pure: no clock, no lock, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use pajamas_plugin_api::Memory;

use crate::error::{Error, Result};

/// A model's memory on the devices, as reserved before loading and corrected after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Bytes by device.
    pub bytes: BTreeMap<String, u64>,
    /// Requests that use it now, or load it: one with any is never evicted.
    pub in_flight: usize,
    /// When it was last used, as a count of uses: the smallest goes first.
    pub last_used: u64,
}

/// All holdings and all budgets.
#[derive(Debug, Default)]
pub struct Ledger {
    budgets: BTreeMap<String, u64>,
    holdings: BTreeMap<String, Holding>,
    pinned: BTreeSet<String>,
    uses: u64,
}

/// Bytes by device of what a plugin estimated or reported.
pub fn by_device(memory: &[Memory]) -> BTreeMap<String, u64> {
    let mut bytes = BTreeMap::new();
    for entry in memory {
        *bytes.entry(entry.device.clone()).or_default() += entry.total();
    }
    bytes
}

impl Ledger {
    /// Sets what models may hold on a device. A device without a budget is not limited.
    pub fn set_budget(&mut self, device: &str, bytes: u64) {
        self.budgets.insert(device.to_owned(), bytes);
    }

    /// Budget and use of every device.
    pub fn devices(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.budgets.iter().map(|(device, budget)| (device.as_str(), *budget, self.held(device)))
    }

    /// What a model holds on each device.
    pub fn holding(&self, model: &str) -> Option<&Holding> {
        self.holdings.get(model)
    }

    /// Bytes on a device that would give way to another model.
    pub fn idle(&self, device: &str) -> u64 {
        let idle = |(id, holding): (&String, &Holding)| {
            let gives_way = holding.in_flight == 0 && !self.pinned.contains(id);
            if gives_way { holding.bytes.get(device).copied() } else { None }
        };
        self.holdings.iter().filter_map(idle).sum()
    }

    /// Bytes held on a device.
    pub fn held(&self, device: &str) -> u64 {
        self.holdings.values().filter_map(|h| h.bytes.get(device)).sum()
    }

    /// Reserves memory for `model`, which the first request enters by that, and says which idle models have to go first, the
    /// least recently used first.
    ///
    /// # Errors
    /// `out-of-memory` with the numbers when it does not fit even then; nothing is reserved.
    pub fn admit(&mut self, model: &str, bytes: BTreeMap<String, u64>) -> Result<Vec<String>> {
        let gives_way =
            |id: &str, holding: &Holding| holding.in_flight == 0 && id != model && !self.pinned.contains(id);
        let mut idle: Vec<(&String, &Holding)> =
            self.holdings.iter().filter(|(id, holding)| gives_way(id, holding)).collect();
        idle.sort_by_key(|(_, h)| h.last_used);
        let mut evicted = Vec::new();
        for (device, need) in &bytes {
            let Some(&budget) = self.budgets.get(device) else { continue };
            let freed = |evicted: &[String]| -> u64 {
                evicted.iter().filter_map(|id| self.holdings.get(id)?.bytes.get(device)).sum()
            };
            let held = self.held(device);
            let mut candidates = idle.iter().filter(|(_, h)| h.bytes.contains_key(device));
            while held - freed(&evicted) + need > budget {
                let next = candidates.find(|(id, _)| !evicted.contains(id));
                let Some((id, _)) = next else { return Err(self.refusal(model, device, *need, budget)) };
                evicted.push((*id).clone());
            }
        }
        for id in &evicted {
            self.holdings.remove(id);
        }
        self.uses += 1;
        let holding = Holding { bytes, in_flight: 1, last_used: self.uses };
        self.holdings.insert(model.to_owned(), holding);
        Ok(evicted)
    }

    fn refusal(&self, model: &str, device: &str, need: u64, budget: u64) -> Error {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let busy: u64 =
            self.holdings.values().filter(|h| h.in_flight > 0).filter_map(|h| h.bytes.get(device)).sum();
        let message = format!(
            "`{model}` needs {} MiB on {device}; models may hold {} MiB there, of which {} MiB are in use by running requests",
            mib(need),
            mib(budget),
            mib(busy)
        );
        Error::new("out-of-memory", message)
            .help("choose a smaller precision or context, raise `memory.limit`, or wait for running requests")
    }

    /// Replaces the estimate by what a loaded model reports.
    pub fn correct(&mut self, model: &str, bytes: BTreeMap<String, u64>) {
        if let Some(holding) = self.holdings.get_mut(model) {
            holding.bytes = bytes;
        }
    }

    /// Gives a model's memory back.
    pub fn release(&mut self, model: &str) {
        self.holdings.remove(model);
    }

    /// Another model takes this one's id. While requests use it, what it holds stays counted, as `name`.
    pub fn retire(&mut self, model: &str, name: &str) {
        if let Some(holding) = self.holdings.remove(model).filter(|holding| holding.in_flight > 0) {
            self.holdings.insert(name.to_owned(), holding);
        }
    }

    /// A request is done with a retired model: the last one gives the memory back.
    pub fn leave_retired(&mut self, name: &str) {
        self.leave(name);
        if self.in_flight(name) == 0 {
            self.release(name);
        }
    }

    /// Lets idle models go until every device is within its budget, the least recently used first, and says which.
    pub fn shrink(&mut self) -> Vec<String> {
        let mut gone = Vec::new();
        for (device, budget) in self.budgets.clone() {
            while self.held(&device) > budget {
                let idle = self.holdings.iter().filter(|(id, holding)| {
                    let idle = holding.in_flight == 0 && !self.pinned.contains(*id);
                    idle && holding.bytes.contains_key(&device)
                });
                let Some((id, _)) = idle.min_by_key(|(_, holding)| holding.last_used) else { break };
                let id = id.clone();
                self.holdings.remove(&id);
                gone.push(id);
            }
        }
        gone
    }

    /// Keeps a model from giving way to others, or no longer.
    pub fn pin(&mut self, model: &str, pinned: bool) {
        if pinned {
            self.pinned.insert(model.to_owned());
        } else {
            self.pinned.remove(model);
        }
    }

    /// Whether a model does not give way.
    pub fn is_pinned(&self, model: &str) -> bool {
        self.pinned.contains(model)
    }

    /// Requests that use a model.
    pub fn in_flight(&self, model: &str) -> usize {
        self.holdings.get(model).map_or(0, |holding| holding.in_flight)
    }

    /// A request begins to use a model.
    pub fn enter(&mut self, model: &str) {
        self.uses += 1;
        if let Some(holding) = self.holdings.get_mut(model) {
            holding.in_flight += 1;
            holding.last_used = self.uses;
        }
    }

    /// A request is done with a model.
    pub fn leave(&mut self, model: &str) {
        if let Some(holding) = self.holdings.get_mut(model) {
            holding.in_flight = holding.in_flight.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cpu(bytes: u64) -> BTreeMap<String, u64> {
        BTreeMap::from([("cpu".to_owned(), bytes)])
    }

    fn ledger(budget: u64) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.set_budget("cpu", budget);
        ledger
    }

    #[test]
    fn the_least_recently_used_idle_model_gives_way() {
        let mut ledger = ledger(100);
        for model in ["a", "b", "c"] {
            assert!(ledger.admit(model, cpu(30)).unwrap().is_empty());
            ledger.leave(model);
        }
        ledger.enter("a");
        ledger.leave("a");
        assert_eq!(ledger.admit("d", cpu(40)).unwrap(), ["b"]);
        assert_eq!(ledger.held("cpu"), 100);
    }

    #[test]
    fn a_running_model_is_never_evicted_and_the_refusal_has_the_numbers() {
        let mut ledger = ledger(100 << 20);
        ledger.admit("a", cpu(60 << 20)).unwrap();
        let error = ledger.admit("b", cpu(50 << 20)).unwrap_err();
        assert_eq!(error.code(), "out-of-memory");
        assert!(
            error.message().contains("needs 50 MiB on cpu; models may hold 100 MiB there, of which 60 MiB")
        );
        ledger.leave("a");
        assert_eq!(ledger.admit("b", cpu(50 << 20)).unwrap(), ["a"]);
    }

    #[test]
    fn what_was_loaded_corrects_what_was_estimated() {
        let mut ledger = ledger(100);
        ledger.admit("a", cpu(80)).unwrap();
        ledger.correct("a", cpu(20));
        assert!(ledger.admit("b", cpu(80)).unwrap().is_empty());
        ledger.release("b");
        assert_eq!(ledger.held("cpu"), 20);
    }

    proptest! {
        #[test]
        fn never_over_budget_and_never_evicts_the_busy(
            steps in prop::collection::vec((0u8..6, 1u64..70, any::<bool>()), 1..60)
        ) {
            let mut ledger = ledger(100);
            let mut busy = std::collections::BTreeSet::new();
            for (model, bytes, enter) in steps {
                let id = model.to_string();
                if busy.remove(&id) {
                    ledger.leave(&id);
                    continue;
                }
                ledger.release(&id);
                if let Ok(evicted) = ledger.admit(&id, cpu(bytes)) {
                    prop_assert!(evicted.iter().all(|e| !busy.contains(e)));
                    if enter {
                        busy.insert(id);
                    } else {
                        ledger.leave(&id);
                    }
                }
                prop_assert!(ledger.held("cpu") <= 100);
            }
        }
    }
}
