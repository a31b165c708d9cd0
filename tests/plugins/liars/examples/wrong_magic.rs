//! A symbol of our name that is not ours.

liars::export_probe!(magic: *b"PYJAMAS!");
