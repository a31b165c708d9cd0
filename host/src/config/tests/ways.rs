//! Entries that name several ways to run them.

use super::super::*;
use super::House;

fn steps(config: &Config, name: &str) -> Vec<String> {
    let join = |step: Vec<&Id>| step.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    config.steps(name).unwrap().into_iter().map(join).collect()
}

#[test]
fn each_way_is_a_model_and_the_name_a_ladder_of_precisions() {
    let config = House::new(
        r#"
        [aliases]
        gpt-4o = "large"
        [defaults]
        chat = "large"
        [[models]]
        id = "large"
        path = "chat.gguf"
        task = "chat"
        precision = ["q8_0", "q4_k_m"]
        device = ["cuda:0", "cpu"]
        preload = true
        ttl = "10m"
        [[models]]
        id = "small"
        path = "chat.gguf"
        backend = ["gguf/llama"]
        [[ladders]]
        id = "both"
        steps = [["large", "small"], "large"]
        "#,
    )
    .load()
    .unwrap()
    .with_ways();
    let ways = ["large:q8_0:cuda:0 large:q8_0:cpu", "large:q4_k_m:cuda:0 large:q4_k_m:cpu"];
    assert_eq!(steps(&config, "large"), ways);
    assert_eq!(steps(&config, "gpt-4o"), ways);
    assert_eq!(steps(&config, "large:q4_k_m:cpu"), ["large:q4_k_m:cpu"]);
    let all = format!("{} small", ways.join(" "));
    let mut together: Vec<&str> = all.split(' ').collect();
    together.sort_unstable();
    let both = steps(&config, "both");
    let mut step: Vec<&str> = both[0].split(' ').collect();
    step.sort_unstable();
    assert_eq!((step, &both[1..]), (together, &ways.map(str::to_owned)[..]));
    let way = config.model("large:q4_k_m:cpu").unwrap();
    let texts = |list: &Option<OneOrMany<String>>| list.as_ref().map(|list| list.join(" "));
    assert_eq!(texts(&way.precision).as_deref(), Some("q4_k_m"));
    assert_eq!((way.device[0].to_string().as_str(), &**way.name()), ("cpu", "large"));
    assert_eq!((way.ttl, way.format.as_ref()), (Some(Period::seconds(600)), None));
    let preloaded: Vec<&str> = config.models.iter().filter(|m| m.preload).map(|m| &*m.id).collect();
    assert_eq!(preloaded, ["large:q8_0:cuda:0"]);
    // Done again it is the same, and what has one way is what it was.
    let again = config.clone().with_ways();
    assert_eq!((again.models, again.ladders), (config.models.clone(), config.ladders.clone()));
    assert_eq!(&*config.model("small").unwrap().id, "small");
}

#[test]
fn what_is_different_about_one_way_is_found() {
    let toml = "[[models]]\nid = \"m\"\npath = \"chat.gguf\"\nprecision = [\"q8_0\", \"q4_k_m\"]\n";
    let house = House::new(toml);
    let before = house.load().unwrap().with_ways();
    let file = house.folder.path().join("pajamas.toml");
    std::fs::write(file, toml.replace("q4_k_m", "q2_k")).unwrap();
    let mut after = house.load().unwrap().with_ways();
    let changes = after.succeed(&before).unwrap();
    assert_eq!(
        (changes.models.added, changes.models.removed),
        (vec!["m:q2_k".into()], vec!["m:q4_k_m".into()])
    );
    assert_eq!((changes.models.changed, changes.ladders.changed), (vec![], vec!["m".into()]));
}

#[test]
fn ways_that_cannot_be_told_apart_are_refused() {
    let house = |rest: &str| {
        House::new(&format!("[[models]]\nid = \"m\"\npath = \"chat.gguf\"\ntask = \"embed\"\n{rest}\n"))
            .codes()
    };
    assert_eq!(house("precision = [\"q8_0\", \"q8_0\"]"), ["config-duplicate-id"]);
    assert_eq!(house("precision = [\"q8 0\", \"q4\"]"), ["config-invalid-value"]);
    assert_eq!(house("device = []"), ["config-invalid-value"]);
    let another = "device = [\"cpu\", \"cuda:0\"]\n[[models]]\nid = \"m:cpu\"\npath = \"chat.gguf\"";
    assert_eq!(house(another), ["config-duplicate-id"]);
    let many: Vec<String> = (0..65).map(|n| format!("\"p{n}\"")).collect();
    assert_eq!(house(&format!("precision = [{}]", many.join(", "))), ["config-invalid-value"]);
    let rule = "device = [\"cpu\", \"cuda:0\"]\n[[routes]]\nid = \"r\"\nuse = \"m\"\n\
                when.similar = { model = \"m\", examples = [\"Hello\"] }";
    assert_eq!(house(rule), ["config-conflict"], "vectors of two ways cannot be compared");
}
