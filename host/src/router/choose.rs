//! Which of several models takes a request: the first step that has one that can and keeps the policies; of that step
//! the one that is predicted to answer first.

use std::borrow::Cow;

use super::ask::Ask;
use super::decision::{Considered, Degraded, Fault, Reason};
use super::name::Name;
use super::predict::{Prediction, predict, waiting};
use super::rules::Plan;
use super::snapshot::{Model, Share, Snapshot};
use crate::config::{Cost, Otherwise, Routing};
use crate::models::State;

/// How much longer the model with the beginning in its cache may take than the fastest, before it is passed over.
const LOYALTY: u64 = 2;
/// What is slower than the fastest by no more than this part of its time counts as as fast: then the cheapest is taken.
const AS_FAST: u64 = 10;

/// What came of looking at all models of a plan.
pub(super) struct Choice {
    pub(super) considered: Vec<Considered>,
    /// The place of the chosen one.
    pub(super) chosen: Option<usize>,
    pub(super) degraded: Option<Degraded>,
}

/// Looks at all models of a plan and chooses one.
pub(super) fn choose(ask: &Ask, snapshot: &Snapshot, plan: &Plan, policies: &Routing) -> Choice {
    let alone = matches!(plan.as_slice(), [step] if step.len() == 1);
    let mut considered: Vec<Considered> = Vec::with_capacity(plan.iter().map(Vec::len).sum());
    for (step, models) in (0..).zip(plan) {
        considered.extend(models.iter().map(|id| match snapshot.models.get(&**id) {
            Some(model) => consider(ask, snapshot, policies, alone, step, id, model),
            None => missing(step, id),
        }));
    }
    let keeps = |one: &Considered| one.rejected.is_none() && one.breaks.is_empty();
    let able = |one: &Considered| one.rejected.is_none();
    let chosen = best(&considered, snapshot, policies, keeps).or_else(|| match policies.otherwise {
        Otherwise::Best => best(&considered, snapshot, policies, able),
        Otherwise::Fastest => fastest(&considered),
        Otherwise::Refuse => None,
    });
    let degraded = chosen.and_then(|chosen| degraded(&considered, snapshot, chosen));
    Choice { considered, chosen, degraded }
}

/// The best of the first step that has one that is good.
fn best(
    considered: &[Considered],
    snapshot: &Snapshot,
    policies: &Routing,
    good: impl Fn(&Considered) -> bool,
) -> Option<usize> {
    let step = considered.iter().find(|one| good(one))?.step;
    let of_step = || considered.iter().enumerate().filter(|(_, one)| one.step == step && good(one));
    let (_, first) = of_step().min_by_key(|(place, one)| (one.score, *place))?;
    let as_fast = first.score.saturating_add(first.score / AS_FAST);
    let cost = |one: &Considered| snapshot.models.get(&*one.model).map_or(0, |model| model.cost);
    let (best, _) = of_step()
        .filter(|(_, one)| one.score <= as_fast)
        .min_by_key(|(place, one)| (cost(one), one.score, *place))?;
    let loyal = of_step().find(|(_, one)| {
        // One that slept has its caches no more.
        let has_caches = |model: &Model| matches!(model.state, State::Ready | State::Busy);
        let warm = snapshot.models.get(&*one.model).is_some_and(has_caches);
        let went = policies.affinity.and_then(|affinity| snapshot.affinity.get(&affinity));
        warm && went.is_some_and(|went| one.model == **went)
    });
    match loyal {
        Some((place, one)) if one.score <= first.score.saturating_mul(LOYALTY) => Some(place),
        _ => Some(best),
    }
}

/// Of all that can take it, whatever their step, the one that is predicted to answer first.
fn fastest(considered: &[Considered]) -> Option<usize> {
    let able = considered.iter().enumerate().filter(|(_, one)| one.rejected.is_none());
    able.min_by_key(|(place, one)| (one.score, *place)).map(|(place, _)| place)
}

fn consider(
    ask: &Ask,
    snapshot: &Snapshot,
    policies: &Routing,
    alone: bool,
    step: u32,
    id: &Name,
    model: &Model,
) -> Considered {
    let predicted = predict(ask, model);
    let room = Room::of(snapshot, model, &model.device, model.memory, model.gave_back);
    let share =
        |(device, share): (_, &Share)| Room::of(snapshot, model, device, Some(share.memory), share.gave_back);
    let elsewhere: Vec<Room<'_>> = model.elsewhere.iter().map(share).collect();
    let evicts = room.evicts || elsewhere.iter().any(|room| room.evicts);
    Considered {
        model: id.clone(),
        step,
        rejected: rejected(ask, model, &room, &elsewhere, alone).or_else(|| late(ask, &predicted)),
        breaks: breaks(policies, snapshot, model, &room, &elsewhere, &predicted, alone),
        score: predicted.total.saturating_add(if evicts { predicted.load } else { 0 }),
        predicted,
    }
}

/// A model that the snapshot does not know: it was taken under another configuration.
fn missing(step: u32, id: &Name) -> Considered {
    let message = "nothing is known of it in this snapshot".to_owned();
    let fault = Fault { code: "model-not-found".to_owned(), message, help: String::new() };
    Considered {
        model: id.clone(),
        step,
        rejected: Some(Reason::Unusable { fault }),
        breaks: Vec::new(),
        predicted: Prediction::default(),
        score: 0,
    }
}

/// The memory of a model's device, as far as it is known.
struct Room<'s> {
    device: &'s Name,
    /// What it needs beyond what it holds, and what models may hold there.
    needs: Option<(u64, u64)>,
    /// What is free, or would give way.
    free: u64,
    /// Whether something has to give way.
    evicts: bool,
}

impl<'s> Room<'s> {
    /// That of one of the devices on which a model holds `memory`, or would, and has given some of it back.
    fn of(snapshot: &Snapshot, model: &Model, name: &'s Name, memory: Option<u64>, gave_back: u64) -> Self {
        let Some(device) = snapshot.devices.get(&**name) else {
            return Self { device: name, needs: None, free: u64::MAX, evicts: false };
        };
        let there = model.state.is_in_memory() || model.state == State::Loading;
        let needs = if there { Some(gave_back) } else { memory };
        let unused = device.budget.saturating_sub(device.held);
        // What it holds itself gives way to others when it is idle, but not to itself.
        let spare = matches!(model.state, State::Ready | State::Sleeping);
        let own = if spare { memory.unwrap_or(0) } else { 0 };
        Self {
            device: name,
            needs: needs.map(|needs| (needs, device.budget)),
            free: unused.saturating_add(device.idle.saturating_sub(own)),
            evicts: needs.is_some_and(|needs| needs > unused),
        }
    }

    /// Why a model can never be loaded there.
    fn too_small(&self) -> Option<Reason> {
        let (needs, budget) = self.needs.filter(|(needs, budget)| needs > budget)?;
        Some(Reason::TooLarge { device: self.device.clone(), needs, budget })
    }

    /// Why it cannot be loaded there now.
    fn full(&self) -> Option<Reason> {
        let (needs, _) = self.needs.filter(|(needs, _)| *needs > self.free)?;
        Some(Reason::NoRoom { device: self.device.clone(), needs, free: self.free })
    }
}

/// Why a model cannot take a request. One that is alone gets it if it is for the task at all: those who load it know
/// better what is in the way, and say it better.
fn rejected(
    ask: &Ask,
    model: &Model,
    room: &Room<'_>,
    elsewhere: &[Room<'_>],
    alone: bool,
) -> Option<Reason> {
    if let Some(made_for) = model.task.filter(|made_for| !made_for.covers(ask.task)) {
        return Some(Reason::Task { made_for });
    }
    if alone {
        return None;
    }
    if let Some(fault) = &model.unusable {
        return Some(Reason::Unusable { fault: fault.clone() });
    }
    if model.state == State::Quarantined {
        return Some(Reason::Quarantined);
    }
    if let Some(context) = model.context.filter(|context| ask.tokens > *context) {
        return Some(Reason::TooLong { tokens: ask.tokens, context });
    }
    room.too_small().or_else(|| elsewhere.iter().find_map(Room::too_small))
}

/// What the client would not wait for, even if it is the only one. A guess makes nothing late.
fn late(ask: &Ask, predicted: &Prediction) -> Option<Reason> {
    let deadline = ask.deadline.filter(|deadline| !predicted.guessed && predicted.total > *deadline)?;
    Some(Reason::Late { predicted: predicted.total, deadline })
}

fn breaks(
    policies: &Routing,
    snapshot: &Snapshot,
    model: &Model,
    room: &Room<'_>,
    elsewhere: &[Room<'_>],
    predicted: &Prediction,
    alone: bool,
) -> Vec<Reason> {
    let mut breaks = Vec::new();
    let device = || model.device.clone();
    if !alone {
        breaks.extend(room.full());
        breaks.extend(elsewhere.iter().filter_map(Room::full));
    }
    if policies.warm_only && !model.state.is_in_memory() {
        breaks.push(Reason::NotWarm { state: model.state });
    }
    if let Some(budget) = policies.latency_budget {
        let budget = u64::try_from(budget.duration().as_micros()).unwrap_or(u64::MAX);
        if predicted.certain > budget {
            breaks.push(Reason::Latency { predicted: predicted.certain, budget });
        }
    }
    if let Some(headroom) = policies.vram_headroom {
        let needs = room.needs.map_or(0, |(needs, _)| needs);
        let (leaves, headroom) = (room.free.saturating_sub(needs), headroom.get());
        if leaves < headroom {
            breaks.push(Reason::Headroom { device: device(), leaves, headroom });
        }
    }
    let waiting = waiting(model);
    if let Some(most) = policies.spill.filter(|most| !alone && waiting > *most) {
        breaks.push(Reason::Crowded { waiting, most });
    }
    if let Some(most) = policies.max_cost.map(Cost::get).filter(|most| model.cost > *most) {
        breaks.push(Reason::Dear { cost: model.cost, most });
    }
    if let (Some(most), Some(known)) = (policies.max_temperature, snapshot.devices.get(&*model.device)) {
        match known.temperature.filter(|temperature| *temperature > most) {
            Some(temperature) => breaks.push(Reason::Hot { device: device(), temperature, most }),
            // It is as slow as one that is too hot: its own limit is lower, or another part of it is hotter.
            None if known.throttled => breaks.push(Reason::Throttled { device: device() }),
            None => {}
        }
    }
    breaks
}

/// What is less about the chosen one than about the first step's.
fn degraded(considered: &[Considered], snapshot: &Snapshot, chosen: usize) -> Option<Degraded> {
    let (first, chosen) = (considered.first()?, considered.get(chosen)?);
    if chosen.step == 0 {
        return None;
    }
    let because = first.rejected.clone().or_else(|| first.breaks.first().cloned());
    let known = |id: &str| snapshot.models.get(id);
    let mut what: Vec<Cow<'static, str>> = Vec::new();
    if let (Some(from), Some(to)) = (known(&first.model), known(&chosen.model))
        && from.source == to.source
    {
        let differences = [
            ("precision", (&from.format, &from.precision) != (&to.format, &to.precision)),
            ("context", from.context != to.context),
            ("device", from.device != to.device),
        ];
        what.extend(differences.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.into()));
    }
    if what.is_empty() {
        what.push("model".into());
    }
    Some(Degraded { from: first.model.clone(), what, because })
}
