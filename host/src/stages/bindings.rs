//! What wasmtime makes of the world `pajamas:stage/stage@1.0.0`. Inputs are lowered from borrowed values, so that a
//! picture or a tensor is copied once: into the stage's memory.

wasmtime::component::bindgen!({
    path: "../wasm-stages/wit/1.0",
    world: "stage",
    ownership: Borrowing { duplicate_if_necessary: true },
});
