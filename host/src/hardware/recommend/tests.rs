//! What is recommended on machines of every kind, for models of 0.6 to 40 GB.

use proptest::prelude::*;

use super::*;
use crate::config::{ByteSize, Config, LoadOptions, Task};
use crate::hardware::recorded::tests::machine;

const GIB: u64 = 1 << 30;

/// Models as `pajamas info` describes such: sizes of the files, layers, hidden size, vocabulary, heads of keys and values, size of a head.
fn model(name: &str) -> ModelFacts {
    let text =
        |layers, hidden_size, vocabulary, key_value_heads, head_size, context, parameters: u64| TextFacts {
            layers,
            hidden_size,
            vocabulary,
            key_value_heads,
            head_size,
            window: None,
            windowed_layers: 0,
            context,
            parameters,
            active: parameters,
            embeddings: u64::from(vocabulary) * u64::from(hidden_size),
            tied: true,
            encoder: false,
        };
    let (bytes, text) = match name {
        "qwen3-0.6b-q8_0" => (639_446_688, text(28, 1024, 151_936, 8, 128, 40_960, 596_049_920)),
        "llama-3.2-3b-q4_k_m" => (2_019_377_696, text(28, 3072, 128_256, 8, 128, 131_072, 3_212_749_888)),
        "llama-3.1-8b-q4_k_m" => (
            4_920_739_232,
            TextFacts {
                tied: false,
                embeddings: 2 * 128_256 * 4096,
                ..text(32, 4096, 128_256, 8, 128, 131_072, 8_030_261_312)
            },
        ),
        "gemma-3-12b-q4_k_m" => (
            7_300_574_976,
            TextFacts {
                window: Some(1024),
                windowed_layers: 40,
                ..text(48, 3840, 262_208, 8, 256, 131_072, 11_765_788_416)
            },
        ),
        "qwen3-30b-a3b-q4_k_m" => (
            18_556_686_912,
            TextFacts {
                active: 3_349_227_520,
                tied: false,
                embeddings: 2 * 151_936 * 2048,
                ..text(48, 2048, 151_936, 4, 128, 40_960, 30_532_122_624)
            },
        ),
        "llama-3.3-70b-q4_k_m" => (
            42_520_395_584,
            TextFacts {
                tied: false,
                embeddings: 2 * 128_256 * 8192,
                ..text(80, 8192, 128_256, 8, 128, 131_072, 70_553_706_496)
            },
        ),
        other => panic!("{other}"),
    };
    let parameters = text.parameters as f64;
    let sizes = [("F16", 16.0), ("Q8_0", 8.5), ("Q6_K", 6.5625), ("Q4_K", 4.5), ("Q2_K", 2.625)];
    ModelFacts {
        task: Some(Task::Chat),
        text: Some(text),
        sizes: sizes.map(|(name, bits)| (name.to_owned(), (parameters * bits / 8.0) as u64)).into(),
        ..ModelFacts::of_size(name, &format!("/models/{name}.gguf"), "gguf", bytes)
    }
}

const MODELS: [&str; 6] = [
    "qwen3-0.6b-q8_0",
    "llama-3.2-3b-q4_k_m",
    "llama-3.1-8b-q4_k_m",
    "gemma-3-12b-q4_k_m",
    "qwen3-30b-a3b-q4_k_m",
    "llama-3.3-70b-q4_k_m",
];

const MACHINES: [&str; 10] = [
    "laptop",
    "raspberry-pi-5",
    "macbook-m2",
    "rtx-4090",
    "h100",
    "graviton",
    "jetson-orin-nano",
    "amx-vm",
    "workstation",
    "two-sockets",
];

fn asked(machine: &Hardware, model: &ModelFacts) -> Answer {
    let profiles = Profiles::built_in().unwrap();
    let places = Place::assumed(machine, &profiles, &model.format);
    let memory = config::Memory::default();
    recommend(&Question {
        machine,
        model,
        profiles: &profiles,
        memory: &memory,
        places: &places,
        more: &BTreeMap::new(),
    })
}

/// The answers of a machine, a line for each model.
fn answers(name: &str) -> String {
    let machine = machine(name);
    let line = |name: &&str| match asked(&machine, &model(name)) {
        Answer::Nowhere(shortage) => format!("{name}: {shortage}; {}", shortage.help()),
        Answer::Fits(found) => {
            let text = found.text.as_ref().unwrap();
            let layers = text.gpu_layers.map(|layers| format!(", {layers} layers")).unwrap_or_default();
            let bound = found.bound.as_ref().map_or("?".to_owned(), |bound| format!("{:.1}", bound.at_begin));
            let rooms: Vec<String> = found
                .memory
                .iter()
                .map(|room| {
                    format!(
                        "{:.1}/{:.1} GiB",
                        room.need.total() as f64 / GIB as f64,
                        room.room as f64 / GIB as f64
                    )
                })
                .collect();
            format!(
                "{name}: {}{layers}, {} x {}, {}, {} threads, {}, <= {bound}/s",
                found.device,
                text.slots,
                text.context_length,
                text.kv_type.unwrap(),
                found.threads,
                rooms.join(" + "),
            )
        }
    };
    MODELS.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_gpu_that_only_a_backend_knows_counts() {
    let mut machine = machine("laptop");
    let device = |free| crate::hardware::Device {
        id: "vulkan:0".to_owned(),
        name: "Radeon RX 7900 XTX".to_owned(),
        memory_total: 24 * GIB,
        memory_free: free,
        backends: vec!["gguf/gguf".to_owned()],
    };
    let on = |machine: &Hardware| match asked(machine, &model("llama-3.1-8b-q4_k_m")) {
        Answer::Fits(found) => (found.device.clone(), found.text.as_ref().unwrap().gpu_layers, found.bound),
        Answer::Nowhere(shortage) => panic!("{shortage}"),
    };
    // Without a bound: nobody tells how fast its memory is.
    for (free, layers) in [(23 * GIB, None), (0, None), (4 * GIB, Some(()))] {
        machine.devices.known = vec![device(free)];
        let (device, some, bound) = on(&machine);
        assert_eq!((&*device, some.map(drop), bound), ("vulkan:0", layers, None), "{free}");
    }
}

#[test]
fn a_laptop_without_a_gpu() {
    insta::assert_snapshot!(answers("laptop"), @r"
    qwen3-0.6b-q8_0: cpu, 2 x 32768, f16, 4 threads, 7.8/10.4 GiB, <= 140.7/s
    llama-3.2-3b-q4_k_m: cpu, 2 x 32768, f16, 4 threads, 9.1/10.4 GiB, <= 44.6/s
    llama-3.1-8b-q4_k_m: cpu, 1 x 32768, f16, 4 threads, 8.9/10.4 GiB, <= 19.6/s
    gemma-3-12b-q4_k_m: cpu, 1 x 32768, f16, 4 threads, 9.6/10.4 GiB, <= 12.3/s
    qwen3-30b-a3b-q4_k_m: at the very least it needs 17.4 GiB, and models may hold 10.4 GiB on cpu: 7.0 GiB are missing; in Q2_K it would fit, with about 9.3 GiB of weights: `pajamas convert` makes that
    llama-3.3-70b-q4_k_m: at the very least it needs 39.8 GiB, and models may hold 10.4 GiB on cpu: 29.4 GiB are missing; no precision of it would fit: take a smaller model, or free or add memory
    ");
}

#[test]
fn slow_cores_are_left_alone_and_that_is_said() {
    for name in ["laptop", "macbook-m2"] {
        let Answer::Fits(found) = asked(&machine(name), &model("llama-3.2-3b-q4_k_m")) else { panic!() };
        let cores = machine(name).cpu.physical_cores;
        let reason = format!("threads: 4 fast cores of {cores}; the others would be waited for");
        assert!(found.reasons.contains(&reason), "{:?}", found.reasons);
    }
    // A record of before cores were told apart has what is known of the chip.
    let mut old = machine("macbook-m2");
    old.cpu.kinds = None;
    let Answer::Fits(found) = asked(&old, &model("llama-3.2-3b-q4_k_m")) else { panic!() };
    assert_eq!((old.recommended_threads(), found.threads), (8, 4));
}

#[test]
fn a_raspberry_pi() {
    insta::assert_snapshot!(answers("raspberry-pi-5"), @r"
    qwen3-0.6b-q8_0: cpu, 1 x 32768, f16, 4 threads, 4.3/6.4 GiB, <= 26.6/s
    llama-3.2-3b-q4_k_m: cpu, 1 x 32768, f16, 4 threads, 5.6/6.4 GiB, <= 8.4/s
    llama-3.1-8b-q4_k_m: cpu, 1 x 8192, f16, 4 threads, 5.8/6.4 GiB, <= 3.7/s
    gemma-3-12b-q4_k_m: at the very least it needs 7.1 GiB, and models may hold 6.4 GiB on cpu: 659.5 MiB are missing; in Q2_K it would fit, with about 3.6 GiB of weights: `pajamas convert` makes that
    qwen3-30b-a3b-q4_k_m: at the very least it needs 17.4 GiB, and models may hold 6.4 GiB on cpu: 11.0 GiB are missing; no precision of it would fit: take a smaller model, or free or add memory
    llama-3.3-70b-q4_k_m: at the very least it needs 39.8 GiB, and models may hold 6.4 GiB on cpu: 33.4 GiB are missing; no precision of it would fit: take a smaller model, or free or add memory
    ");
}

#[test]
fn a_macbook_whose_gpu_shares_the_memory() {
    insta::assert_snapshot!(answers("macbook-m2"), @r"
    qwen3-0.6b-q8_0: metal:0, 2 x 32768, f16, 4 threads, 7.8/10.1 GiB + 0.3/9.5 GiB, <= 156.4/s
    llama-3.2-3b-q4_k_m: metal:0, 2 x 32768, f16, 4 threads, 9.1/10.1 GiB + 0.3/9.5 GiB, <= 49.5/s
    llama-3.1-8b-q4_k_m: metal:0, 1 x 16384, f16, 4 threads, 6.8/10.1 GiB + 0.7/9.5 GiB, <= 21.7/s
    gemma-3-12b-q4_k_m: metal:0, 1 x 16384, f16, 4 threads, 8.5/10.1 GiB + 0.7/9.5 GiB, <= 13.7/s
    qwen3-30b-a3b-q4_k_m: at the very least it needs 17.4 GiB, and models may hold 9.5 GiB on cpu: 8.0 GiB are missing; no precision of it would fit: take a smaller model, or free or add memory
    llama-3.3-70b-q4_k_m: at the very least it needs 39.8 GiB, and models may hold 9.5 GiB on cpu: 30.4 GiB are missing; no precision of it would fit: take a smaller model, or free or add memory
    ");
}

#[test]
fn a_workstation_with_one_large_gpu() {
    insta::assert_snapshot!(answers("rtx-4090"), @r"
    qwen3-0.6b-q8_0: cuda:0, 4 x 40960, f16, 16 threads, 18.3/22.8 GiB + 0.3/56.1 GiB, <= 1576.4/s
    llama-3.2-3b-q4_k_m: cuda:0, 4 x 32768, f16, 16 threads, 16.1/22.8 GiB + 0.3/56.1 GiB, <= 499.2/s
    llama-3.1-8b-q4_k_m: cuda:0, 4 x 32768, f16, 16 threads, 20.8/22.8 GiB + 0.7/56.1 GiB, <= 219.2/s
    gemma-3-12b-q4_k_m: cuda:0, 4 x 32768, f16, 16 threads, 16.9/22.8 GiB + 0.7/56.1 GiB, <= 138.1/s
    qwen3-30b-a3b-q4_k_m: cuda:0, 1 x 32768, f16, 16 threads, 20.5/22.8 GiB + 0.5/56.1 GiB, <= 545.9/s
    llama-3.3-70b-q4_k_m: cuda:0, 44 layers, 1 x 8192, f16, 16 threads, 22.7/22.8 GiB + 19.9/56.1 GiB, <= 4.2/s
    ");
}

#[test]
fn a_server_with_a_gpu() {
    insta::assert_snapshot!(answers("h100"), @r"
    qwen3-0.6b-q8_0: cuda:0, 4 x 40960, f16, 26 threads, 18.3/78.6 GiB + 0.3/213.4 GiB, <= 5238.9/s
    llama-3.2-3b-q4_k_m: cuda:0, 4 x 131072, f16, 26 threads, 58.4/78.6 GiB + 0.3/213.4 GiB, <= 1658.9/s
    llama-3.1-8b-q4_k_m: cuda:0, 4 x 131072, f16, 26 threads, 69.1/78.6 GiB + 0.7/213.4 GiB, <= 728.4/s
    gemma-3-12b-q4_k_m: cuda:0, 4 x 131072, f16, 26 threads, 41.2/78.6 GiB + 0.7/213.4 GiB, <= 458.9/s
    qwen3-30b-a3b-q4_k_m: cuda:0, 4 x 40960, f16, 26 threads, 32.5/78.6 GiB + 0.5/213.4 GiB, <= 1814.3/s
    llama-3.3-70b-q4_k_m: cuda:0, 3 x 32768, f16, 26 threads, 69.9/78.6 GiB + 1.3/213.4 GiB, <= 80.0/s
    ");
}

#[test]
fn a_server_with_two_sockets() {
    let told = answers("two-sockets");
    assert!(told.lines().all(|line| line.contains(": cpu, 4 x ") && line.contains(" 64 threads")), "{told}");
}

#[test]
fn an_arm_server() {
    insta::assert_snapshot!(answers("graviton"), @r"
    qwen3-0.6b-q8_0: cpu, 4 x 40960, f16, 16 threads, 18.4/29.4 GiB, <= 480.1/s
    llama-3.2-3b-q4_k_m: cpu, 4 x 32768, f16, 16 threads, 16.1/29.4 GiB, <= 152.0/s
    llama-3.1-8b-q4_k_m: cpu, 4 x 32768, f16, 16 threads, 20.9/29.4 GiB, <= 66.8/s
    gemma-3-12b-q4_k_m: cpu, 4 x 65536, f16, 16 threads, 25.1/29.4 GiB, <= 42.1/s
    qwen3-30b-a3b-q4_k_m: cpu, 3 x 32768, f16, 16 threads, 26.5/29.4 GiB, <= 166.3/s
    llama-3.3-70b-q4_k_m: at the very least it needs 39.8 GiB, and models may hold 29.4 GiB on cpu: 10.5 GiB are missing; in Q2_K it would fit, with about 21.6 GiB of weights: `pajamas convert` makes that
    ");
}

#[test]
fn a_board_whose_gpu_shares_the_memory() {
    insta::assert_snapshot!(answers("jetson-orin-nano"), @r"
    qwen3-0.6b-q8_0: cuda:0, 1 x 32768, f16, 6 threads, 4.3/5.5 GiB + 0.3/5.5 GiB, <= 159.5/s
    llama-3.2-3b-q4_k_m: cuda:0, 1 x 16384, f16, 6 threads, 3.8/5.5 GiB + 0.3/5.5 GiB, <= 50.5/s
    llama-3.1-8b-q4_k_m: cpu, 1 x 8192, q8_0, 6 threads, 5.3/5.5 GiB, <= ?/s
    gemma-3-12b-q4_k_m: at the very least it needs 7.1 GiB, and models may hold 5.5 GiB on cpu: 1.6 GiB are missing; in Q2_K it would fit, with about 3.6 GiB of weights: `pajamas convert` makes that
    qwen3-30b-a3b-q4_k_m: at the very least it needs 17.4 GiB, and models may hold 5.5 GiB on cpu: 12.0 GiB are missing; no precision of it would fit: take a smaller model, or free or add memory
    llama-3.3-70b-q4_k_m: at the very least it needs 39.8 GiB, and models may hold 5.5 GiB on cpu: 34.4 GiB are missing; no precision of it would fit: take a smaller model, or free or add memory
    ");
}

#[test]
fn a_person_is_told_all_of_it() {
    let Answer::Fits(found) = asked(&machine("rtx-4090"), &model("llama-3.3-70b-q4_k_m")) else { panic!() };
    insta::assert_snapshot!(found, @r#"
    Model       /models/llama-3.3-70b-q4_k_m.gguf
    Backend     gguf on cuda:0
    GPU layers  44
    Context     8192 tokens, one request at a time
    Cache       keys and values in f16
    Batches     2048 tokens, 512 computed together
    Threads     16
    Memory      cuda:0: 22.7 GiB of 22.8 GiB: 21.1 GiB weights, 1.4 GiB cache, 248.0 MiB to compute in
                cpu: 19.9 GiB of 56.1 GiB: 18.5 GiB weights, 1.1 GiB cache, 296.9 MiB to compute in
    Bound       at most 4.2 tokens/s, 3.9 at the end of the context: each token reads 39.0 GiB
                cuda:0 reads 1008 GB/s; NVIDIA, GeForce RTX 4090: 384 bit of GDDR6X at 21 Gbit/s
                cpu reads 90 GB/s; if it has what such machines come with: clients with 2 channels of DDR5-5600
    Why         gpu_layers: 44 of 80 layers fit on cuda:0 (NVIDIA GeForce RTX 4090); the processor computes the others
                context_length: 8192 of 131072 tokens, since something else is given up for it
                parallel: keys and values of more than 1 at the same time do not fit
                threads: one for each of the 16 cores that this process may use

    [[models]]
    id = "llama-3.3-70b-q4_k_m"
    path = "/models/llama-3.3-70b-q4_k_m.gguf"
    task = "chat"
    backend = "gguf"
    device = "cuda:0"
    options = { threads = 16, context_length = 8192, parallel = 1, batch_size = 2048, micro_batch_size = 512, gpu_layers = 44, kv_type_k = "f16", kv_type_v = "f16" }
    "#);
}

#[test]
fn what_no_model_for_text_has_is_left_out() {
    let facts = ModelFacts::of_size("yolo11n", "yolo11n.onnx", "onnx", 10_000_000);
    let Answer::Fits(found) = asked(&machine("rtx-4090"), &facts) else { panic!() };
    assert_eq!((found.backend.as_str(), found.device.as_str(), &found.text), ("onnxruntime", "cpu", &None));
    assert_eq!(found.options().keys().collect::<Vec<_>>(), ["threads"]);
}

#[test]
fn a_backend_that_needs_more_is_believed() {
    let (machine, model) = (machine("rtx-4090"), model("llama-3.1-8b-q4_k_m"));
    let profiles = Profiles::built_in().unwrap();
    let places = Place::assumed(&machine, &profiles, "gguf");
    let memory = config::Memory::default();
    let context = |more: u64| {
        let more = BTreeMap::from([("cuda:0".to_owned(), more)]);
        let question = Question {
            machine: &machine,
            model: &model,
            profiles: &profiles,
            memory: &memory,
            places: &places,
            more: &more,
        };
        let Answer::Fits(found) = recommend(&question) else { panic!() };
        assert!(found.memory.iter().all(|room| room.need.total() <= room.room));
        (found.device, found.text.unwrap().context_length)
    };
    let (_, usual) = context(0);
    let (device, less) = context(16 * GIB);
    assert!(less < usual && device == "cuda:0", "{less} {usual}");
}

/// What is pasted is a configuration that loads, with the very settings.
#[test]
fn the_entry_is_read_by_the_configuration() {
    for (name, place) in MODELS.into_iter().flat_map(|model| MACHINES.map(|machine| (model, machine))) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a \"model\".gguf");
        std::fs::write(&file, "").unwrap();
        let mut facts = model(name);
        facts.path = file.to_str().unwrap().to_owned();
        let Answer::Fits(found) = asked(&machine(place), &facts) else { continue };
        std::fs::write(folder.path().join("pajamas.toml"), found.entry()).unwrap();
        let options = LoadOptions { folder: folder.path().to_owned(), ..LoadOptions::default() };
        let config =
            Config::load(&options).unwrap_or_else(|problems| panic!("{}\n{problems}", found.entry()));
        let entry = &config.models[0];
        assert_eq!((&*entry.id, entry.task), (name, Some(Task::Chat)));
        assert_eq!((&entry.options, entry.device[0].to_string()), (&found.options(), found.device.clone()));
        assert!(entry.backend[0].allows("gguf", "gguf") && entry.path.as_deref() == Some(&file));
    }
}

/// A machine with another amount of memory, all of it free.
fn sized(name: &str, main: u64, gpu: u64) -> Hardware {
    let mut machine = machine(name);
    (machine.memory.total, machine.memory.available) = (main, main);
    for device in &mut machine.gpus.devices {
        (device.memory_total, device.memory_free) = (gpu.max(1), gpu);
    }
    machine
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn what_is_recommended_fits(
        name in prop::sample::select(MACHINES.to_vec()), of in prop::sample::select(MODELS.to_vec()),
        (main, gpu) in (1..200 * GIB, 0..100 * GIB), reserve in 0..8_000_u64,
    ) {
        let (machine, model) = (sized(name, main, gpu), model(of));
        let profiles = Profiles::built_in().unwrap();
        let places = Place::assumed(&machine, &profiles, "gguf");
        let memory = config::Memory { reserve: ByteSize::mib(reserve), ..config::Memory::default() };
        let question = Question { machine: &machine, model: &model, profiles: &profiles, memory: &memory, places: &places, more: &BTreeMap::new() };
        match recommend(&question) {
            Answer::Fits(found) => {
                for room in &found.memory {
                    prop_assert!(room.need.total() <= room.room, "{found}");
                    // Nothing of the reserve is taken.
                    let free = if room.need.device.starts_with("cuda") { gpu } else { main };
                    prop_assert!(room.room + (reserve << 20) <= free, "{found}");
                }
                let text = found.text.unwrap();
                prop_assert!(text.context_length <= model.text.as_ref().unwrap().context && text.slots >= 1);
                // All weights are somewhere.
                prop_assert!(found.memory.iter().map(|room| room.need.weights).sum::<u64>() >= model.bytes);
            }
            Answer::Nowhere(shortage) => {
                prop_assert!(shortage.missing > 0);
                if let Some((_, bytes)) = shortage.smaller {
                    prop_assert!(bytes < model.bytes);
                }
            }
        }
    }

    #[test]
    fn more_memory_never_means_a_shorter_context(
        name in prop::sample::select(MACHINES.to_vec()), of in prop::sample::select(MODELS.to_vec()),
        (main, gpu) in (1..100 * GIB, 0..60 * GIB), (more, more_gpu) in (0..100 * GIB, 0..60 * GIB),
    ) {
        let context = |machine: &Hardware| match asked(machine, &model(of)) {
            Answer::Fits(found) => found.text.unwrap().context_length,
            Answer::Nowhere(_) => 0,
        };
        let (less, more) = (sized(name, main, gpu), sized(name, main + more, gpu + more_gpu));
        prop_assert!(context(&less) <= context(&more));
    }
}
