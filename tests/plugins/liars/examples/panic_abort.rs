//! A plugin whose panics would end the host.

liars::export_probe!(panic_unwind: 0);
