//! What the fleet is like at one moment.

use std::time::Duration;

use super::ledger::less;
use super::record::Rest;
use super::session::{Phase, Session};
use super::{Bytes, DeviceUse, Fleet};
use crate::error::Error;
use crate::models::status::{Failure, State};

impl Fleet {
    /// What a model is doing.
    pub fn state(&self, model: &str) -> State {
        let Some(record) = self.records.get(model) else { return State::Unloaded };
        match record.current.and_then(|current| self.sessions.get(&current)) {
            Some(session) if session.is_ready() && session.in_flight > 0 => State::Busy,
            Some(session) if session.is_ready() => State::Ready,
            Some(session) if session.sleeps() => State::Sleeping,
            Some(_) => State::Loading,
            None if record.is_quarantined() => State::Quarantined,
            None if record.trouble.is_some() => State::Failed,
            None if record.leaving > 0 => State::Unloading,
            None => State::Unloaded,
        }
    }

    /// The session that new requests get, when there is one; asleep it is woken for them.
    pub fn ready(&self, model: &str) -> Option<u64> {
        let current = self.records.get(model)?.current?;
        self.sessions.get(&current).is_some_and(Session::is_kept).then_some(current)
    }

    /// The models that are in memory, are loaded or are freed.
    pub fn present(&self) -> impl Iterator<Item = &str> {
        self.sessions.values().map(|session| session.model.as_str())
    }

    /// What a model's session holds, or has reserved.
    pub fn holding(&self, model: &str) -> Option<&Bytes> {
        self.ledger.holding(self.records.get(model)?.current?)
    }

    /// Requests that use a model.
    pub fn in_flight(&self, model: &str) -> usize {
        self.sessions
            .values()
            .filter(|session| session.model == model && session.is_ready())
            .map(|s| s.in_flight)
            .sum()
    }

    /// Requests that wait for a model.
    pub fn waiting(&self, model: &str) -> usize {
        self.waiting.values().filter(|waiting| waiting.model == model).count()
    }

    /// Whether a session is being freed now.
    pub fn is_unloading(&self, session: u64) -> bool {
        let goes = |session: &Session| {
            session.phase == Phase::Unloading || (session.phase == Phase::Retired && session.turning)
        };
        self.sessions.get(&session).is_some_and(goes)
    }

    /// Whether any is, or falls asleep or wakes.
    pub fn is_moving(&self) -> bool {
        self.sessions.values().any(|session| session.phase == Phase::Unloading || session.turning)
    }

    /// Why a model failed, if it did.
    pub fn failure(&self, model: &str) -> Option<&Failure> {
        Some(&self.records.get(model)?.trouble.as_ref()?.failure)
    }

    /// How often a model was loaded, and how long that took the latest time; `None` when it never was.
    pub fn loads(&self, model: &str) -> Option<(u64, Duration)> {
        self.records.get(model).filter(|record| record.loads > 0).map(|record| (record.loads, record.took))
    }

    /// How often a model was woken, and how long that took the latest time; `None` when it never was.
    pub fn wakes(&self, model: &str) -> Option<(u64, Duration)> {
        self.records.get(model).filter(|record| record.wakes > 0).map(|record| (record.wakes, record.woke))
    }

    /// What a model's session that sleeps holds less than awake.
    pub fn gave_back(&self, model: &str) -> Option<Bytes> {
        let current = self.records.get(model)?.current?;
        let session = self.sessions.get(&current).filter(|session| session.sleeps())?;
        Some(less(&session.awake, self.ledger.holding(current)?))
    }

    /// How long it will be until a model is loaded, if that takes as long as the latest time: what has passed of a load is
    /// taken off, what it has to rest before is added. `None` when it never was.
    pub fn left_to_load(&self, model: &str, now: Duration) -> Option<Duration> {
        let record = self.records.get(model).filter(|record| record.loads > 0)?;
        let current = record.current.and_then(|current| self.sessions.get(&current));
        let passed = current.filter(|session| session.phase == Phase::Loading);
        let passed = passed.map_or(Duration::ZERO, |session| now.saturating_sub(session.begun));
        let rest = match record.rest(model, now) {
            Some(Rest::Until(until)) => until.saturating_sub(now),
            _ => Duration::ZERO,
        };
        Some(record.took.saturating_sub(passed).saturating_add(rest))
    }

    /// Why a model that is not in memory is not loaded now, with how long that is so; `None` when a request may try.
    pub fn back_off(&self, model: &str, now: Duration) -> Option<Error> {
        let record = self.records.get(model).filter(|record| record.current.is_none())?;
        match record.rest(model, now) {
            Some(Rest::Refused(error)) => Some(error),
            _ => None,
        }
    }

    /// How often a model was found to leak.
    pub fn leaks(&self, model: &str) -> u64 {
        self.records.get(model).map_or(0, |record| record.leaks)
    }

    /// Whether a model stays when others need room.
    pub fn is_pinned(&self, model: &str) -> bool {
        self.records.get(model).is_some_and(|record| record.pinned)
    }

    /// How long it still is before a model goes for want of requests.
    pub fn expires(&self, model: &str) -> Option<Duration> {
        let current = self.records.get(model)?.current?;
        Some(self.due(self.sessions.get(&current)?)?.saturating_sub(self.now))
    }

    /// Every device whose size is known.
    pub fn devices(&self) -> impl Iterator<Item = DeviceUse> {
        self.ledger.devices()
    }

    /// What models may hold on a device, as far as others leave it.
    pub fn room_on(&self, device: &str) -> Option<u64> {
        self.ledger.room(device)
    }

    /// Bytes on a device that would give way to another model.
    pub fn idle(&self, device: &str) -> u64 {
        let idle =
            self.sessions.iter().filter(|(_, session)| session.is_spare() && !self.is_pinned(&session.model));
        idle.filter_map(|(id, _)| self.ledger.holding(*id)?.get(device)).fold(0, |a, b| a.saturating_add(*b))
    }
}
