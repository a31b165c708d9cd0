//! What is a stage, and where stages are found.

use super::*;

#[test]
fn what_is_no_stage_says_what_it_is() {
    let told = |bytes: &[u8]| {
        let error = engine().load("it", bytes).unwrap_err();
        assert_eq!(error.code(), "stage-invalid");
        error.message().to_owned()
    };
    assert!(told(b"").contains("empty file"));
    assert!(told(b"#!/bin/sh\n").contains("no WASM"));
    assert!(told(b"\0asm\x01\0\0\0").contains("core WASM module"));
    assert!(told(b"\0asm\x0d\0\x01\0rubbish").contains("stage it"));
    // An empty component is a component, and exports nothing.
    assert!(told(b"\0asm\x0d\0\x01\0").contains("pajamas:stage/processing"));
}

#[test]
fn a_truncated_stage_is_refused() {
    let whole = std::fs::read(built().join("nms.wasm")).unwrap();
    for length in [8, 9, whole.len() / 2, whole.len() - 1] {
        assert_eq!(code(engine().load("nms", &whole[..length])), "stage-invalid", "{length} bytes");
    }
}

#[test]
fn an_import_that_is_not_granted_is_named() {
    let error = load(&engine(), "test-foreign-import").unwrap_err();
    assert_eq!(error.code(), "stage-import-refused");
    assert!(error.message().contains("tests:foreign/clock@1.0.0"), "{error}");
}

#[test]
fn a_missing_file_is_not_found() {
    assert_eq!(code(engine().load_file(Path::new("/no/such/stage.wasm"))), "file-not-found");
}

#[test]
fn a_folder_comes_before_what_is_built_in() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::new(vec![folder.path().to_path_buf()]);
    assert_eq!(catalog.find("nms").unwrap(), Origin::BuiltIn);
    let own = folder.path().join("nms.wasm");
    std::fs::copy(built().join("test-misbehaving.wasm"), &own).unwrap();
    assert_eq!(catalog.find("nms").unwrap(), Origin::File(own.clone()));
    assert_eq!(catalog.load(&engine(), "nms").unwrap().describe().name, "misbehaving");
    assert_eq!(catalog.find(own.to_str().unwrap()).unwrap(), Origin::File(own));
    let names: Vec<_> = catalog.list().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, BUILT_IN.iter().map(|stage| stage.name.to_owned()).collect::<Vec<_>>());
}

#[test]
fn an_unknown_name_gets_a_suggestion_and_never_leaves_the_folders() {
    let catalog = Catalog::new(vec![built().join("somewhere")]);
    let error = catalog.find("leterbox").unwrap_err();
    assert_eq!((error.code(), error.how_to_fix()), ("stage-not-found", "did you mean `letterbox`?"));
    assert_eq!(code(catalog.find("../nms")), "stage-not-found");
    assert_eq!(code(catalog.find("gone.wasm")), "file-not-found");
}
