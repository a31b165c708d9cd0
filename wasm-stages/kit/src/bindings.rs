//! What `wit-bindgen` makes of the world `pajamas:stage/stage@1.0.0`.

#![allow(missing_docs, reason = "generated; the WIT package is the documentation")]

wit_bindgen::generate!({
    path: "../wit/1.0",
    world: "stage",
    pub_export_macro: true,
    generate_unused_types: true,
    default_bindings_module: "pajamas_stage::__private::bindings",
    additional_derives: [PartialEq, Clone],
});
