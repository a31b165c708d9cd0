//! A component that imports what no stage is granted, and is no stage either.

// Natively there is nothing that could use it.
#![cfg(target_arch = "wasm32")]
#![allow(missing_docs, reason = "generated; the WIT package is the documentation")]

wit_bindgen::generate!({ path: "wit", world: "foreign" });

struct Foreign;

impl Guest for Foreign {
    fn later() -> u64 {
        tests::foreign::clock::now() + 1
    }
}

export!(Foreign);
