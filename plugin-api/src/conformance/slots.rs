//! Checks of sessions whose slots can be made fewer: what they give back, and that they answer as before.

use super::model::{Subject, is_off, total};
use super::runner::{Finding, Runner, fault, passed};
use super::text::say;
use crate::{Memory, Slots, SlotsInfo};

pub(super) fn check(runner: &mut Runner, subject: &Subject) {
    if Slots::of(&*subject.session).is_none() {
        return runner.skip("gives back slots", "the session does not offer it");
    }
    let a = subject.clone();
    runner.run("gives back slots", move || gives_back(&a));
}

fn gives_back(subject: &Subject) -> Finding {
    let session = &*subject.session;
    let slots = Slots::of(session).ok_or("it is not offered any more")?;
    let SlotsInfo { slots: all, each } = slots.describe().map_err(fault("describe"))?;
    if all == 0 {
        return Err("describe: it has no slots".into());
    }
    let (wide, before) = (session.usage(), say(subject)?);
    let promised = total(&each) * u64::from(all - 1);
    for (wanted, expected) in [(1, 1), (0, 1), (all.saturating_add(1), all)] {
        let now = slots.resize(wanted).map_err(fault("resize"))?;
        if now != expected {
            return Err(format!(
                "{wanted} wanted of {all}, and nothing in work: it says {now}, not {expected}"
            ));
        }
        let given = total(&wide).saturating_sub(total(&session.usage()));
        let expected = if now == all { 0 } else { promised };
        if given != expected && is_off(given, expected) {
            return Err(format!(
                "with {now} of {all} slots it gave back {given} bytes, and promised {expected}"
            ));
        }
        let after = say(subject)?;
        if after != before {
            return Err(format!("{before:?} with {all} slots, {after:?} with {now}"));
        }
    }
    passed(format!("{all} slots, {} bytes each", each.iter().map(Memory::total).sum::<u64>()))
}
