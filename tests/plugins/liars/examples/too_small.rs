//! A probe from before version 1.

liars::export_probe!(struct_size: 16);
