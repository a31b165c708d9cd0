//! A plugin for an ABI that does not exist yet.

liars::export_probe!(abi_major: 2);
