//! Compiled stages on disk.

use std::fs;
use std::sync::{Arc, Mutex};

use super::*;

fn engine_with(cache: &Path) -> (StageEngine, Arc<Mutex<Vec<String>>>) {
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = {
        let said = said.clone();
        LogSink::new(move |line| said.lock().unwrap().push(line.message.to_owned()))
    };
    (StageEngine::new(EngineConfig { cache: Some(cache.to_path_buf()), log }).unwrap(), said)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_stage_is_compiled_once_and_a_damaged_file_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("stages");
    assert!(!load(&engine_with(&cache).0, "test-misbehaving").unwrap().cached());
    assert!(load(&engine_with(&cache).0, "test-misbehaving").unwrap().cached());

    let [file] = files(&cache).try_into().unwrap();
    let whole = fs::read(&file).unwrap();
    for damaged in [&b""[..], b"not machine code", &whole[..whole.len() / 2]] {
        fs::write(&file, damaged).unwrap();
        assert!(!load(&engine_with(&cache).0, "test-misbehaving").unwrap().cached());
        assert_eq!(fs::read(&file).unwrap().len(), whole.len(), "it is written anew");
    }
}

#[test]
fn what_another_engine_made_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("stages");
    let (engine, _) = engine_with(&cache);
    let sha256 =
        load(&engine_with(&folder.path().join("other")).0, "test-misbehaving").unwrap().sha256().to_owned();
    fs::write(cache.join(format!("{sha256}-0123456789abcdef.cwasm")), "old").unwrap();
    load(&engine, "test-misbehaving").unwrap();
    let [file] = files(&cache).try_into().unwrap();
    assert!(!file.ends_with("0123456789abcdef.cwasm"));
}

#[cfg(unix)]
#[test]
fn a_folder_that_others_may_enter_is_not_trusted() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (engine, said) = engine_with(folder.path());
    assert!(said.lock().unwrap()[0].contains("chmod 700"), "{said:?}");
    assert!(!load(&engine, "test-misbehaving").unwrap().cached());
    assert!(files(folder.path()).is_empty());
}

#[test]
fn a_folder_that_cannot_be_made_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let (engine, said) = engine_with(&file.join("below"));
    assert_eq!(said.lock().unwrap().len(), 1);
    assert!(load(&engine, "test-misbehaving").is_ok());
}
