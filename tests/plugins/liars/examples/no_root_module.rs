//! An honest probe with nothing behind it.

liars::export_probe!();
