//! The configuration as a whole: what is read, and what comes of it.

mod changes;
mod fuzz;
mod layers;
mod messages;
mod own_file;
mod routes;
mod ways;

use std::path::Path;

use super::*;

/// A folder with a configuration, and the files that it may name.
struct House {
    folder: tempfile::TempDir,
    options: LoadOptions,
}

impl House {
    fn new(toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pajamas.toml"), toml).unwrap();
        for file in ["chat.gguf", "yolo.onnx", "labels.txt"] {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        let options = LoadOptions { folder: folder.path().to_owned(), ..LoadOptions::default() };
        Self { folder, options }
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.options.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn set(mut self, key: &str, value: &str) -> Self {
        let flag = "--set".to_owned();
        self.options.overrides.push(Override { flag, key: key.to_owned(), value: value.to_owned() });
        self
    }

    fn load(&self) -> Result<Config, Problems> {
        Config::load(&self.options)
    }

    /// What a person reads, with the folder's name taken out.
    fn problems(&self) -> String {
        let problems = self.load().expect_err("the configuration should have been refused");
        problems.to_string().replace(&format!("{}/", self.folder.path().display()), "")
    }

    fn codes(&self) -> Vec<String> {
        let problems = self.load().expect_err("the configuration should have been refused");
        problems.iter().map(|p| p.code().to_owned()).collect()
    }
}

#[test]
fn nothing_written_is_the_built_in_defaults() {
    let config = House::new("").load().unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8797");
    assert_eq!(config.server.request_timeout, Period::seconds(120));
    assert!(config.models.is_empty() && config.pipelines.is_empty());
    let empty = tempfile::tempdir().unwrap();
    let options = LoadOptions { folder: empty.path().to_owned(), ..LoadOptions::default() };
    assert_eq!(Config::load(&options).unwrap().file, None);
}

#[test]
fn everything_that_can_be_written_is_read() {
    let house = House::new(
        r#"
        schema = 1
        [server]
        listen = "[::1]:80"
        request_timeout = "2m"
        max_body = "1MiB"
        [plugins]
        search = ["build", "/opt/pajamas"]
        require_hash = true
        settings.gguf = { variant = "avx2", depth = [1, 2.5, "x"] }
        [stages]
        search = ["stages"]
        cache_dir = "cache"
        limits = { memory = "64MiB", deadline = "500ms", output = "8MiB" }
        [memory]
        limit = "8GiB"
        reserve = "1GiB"
        devices."cuda:0" = { reserve = "2GiB" }
        [defaults]
        chat = "small"
        detect = "boxes"
        [[models]]
        id = "small"
        path = "chat.gguf"
        task = "chat"
        backend = "gguf/llama"
        device = "cpu"
        format = "gguf"
        precision = "q8_0"
        options = { context = 512, flash_attention = true }
        preload = true
        description = "A small one"
        [[models]]
        id = "boxes"
        artifact = "."
        task = "detect"
        pipeline = "find"
        [[pipelines]]
        id = "find"
        task = "detect"
        steps = [
            { stage = "image-decode", options = { max_pixels = 1_000_000 }, limits = { memory = "1GiB" } },
            { model = true, inputs = { images = "tensor" }, outputs = { output0 = "tensor" } },
            { stage = "labels", files = { labels = "labels.txt", own = "artifact:names.txt" } },
        ]
        "#,
    );
    let config = house.load().unwrap();
    let folder = house.folder.path();

    assert_eq!(config.server.listen.to_string(), "[::1]:80");
    assert!(config.plugins.require_hash);
    let search: Vec<&Path> = config.plugins.search.iter().map(AsRef::as_ref).collect();
    assert_eq!(search, [folder.join("build"), "/opt/pajamas".into()]);
    assert_eq!(config.plugins.settings["gguf"]["depth"], serde_json::json!([1, 2.5, "x"]));
    assert_eq!(config.stages.cache_dir.as_deref(), Some(&*folder.join("cache")));
    assert_eq!(config.memory.budget("cuda:0", 4 << 30), 2 << 30);

    let small = config.model("small").unwrap();
    assert_eq!(small.location(), Some(&*folder.join("chat.gguf")));
    assert!(small.backend[0].allows("gguf", "llama") && small.preload);
    assert_eq!(small.options["context"], 512);
    assert_eq!(config.defaults.of(Task::Chat), Some(&small.id));

    let find = config.pipeline("find").unwrap();
    let limits = match &find.steps[0] {
        Step::Stage(stage) => stage.limits.or(config.stages.limits),
        Step::Model(_) => panic!("the first step is a stage"),
    };
    assert_eq!((limits.memory, limits.deadline), (ByteSize::mib(1024), Period::milliseconds(500)));
    assert_eq!(find.steps[1].wiring().input("images"), "tensor");
    assert_eq!(find.steps[1].wiring().output("other"), "other");
    let Step::Stage(labels) = &find.steps[2] else { panic!("the last step is a stage") };
    assert_eq!(labels.files["own"], GrantedFile::Artifact("names.txt".into()));
    assert_eq!(labels.files["labels"], GrantedFile::Local(LocalPath::new(folder.join("labels.txt"))));
}

#[test]
fn jobs_need_a_folder_that_is_there_and_room() {
    let house = |toml: &str| House::new(&format!("[jobs]\n{toml}\n"));
    let config = house("").load().unwrap();
    assert_eq!((config.jobs.folder, config.jobs.max_queue, config.jobs.history), (None, 16, 100));
    let good = house("folder = \".\"\nhistory = 1");
    let folder = good.load().unwrap().jobs.folder.unwrap();
    assert_eq!(folder.canonicalize().unwrap(), good.folder.path().canonicalize().unwrap());
    assert_eq!(house("folder = \"none\"").codes(), ["config-file-missing"]);
    assert_eq!(house("folder = \"chat.gguf\"").codes(), ["config-invalid-value"]);
    assert_eq!(house("max_queue = 0\nhistory = 0").codes(), ["config-invalid-value"; 2]);
}

#[test]
fn the_home_folder_is_known_by_its_sign() {
    let toml = "[stages]\ncache_dir = \"~/cache\"\n";
    let config = House::new(toml).variable("HOME", "/home/llama").load().unwrap();
    assert_eq!(config.stages.cache_dir.as_deref(), Some(Path::new("/home/llama/cache")));
    assert_eq!(House::new(toml).codes(), ["config-invalid-value"]);
}
