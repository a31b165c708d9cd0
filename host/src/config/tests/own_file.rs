//! The repository's own pajamas.toml, which is also the reference that newcomers read.

use super::*;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pajamas.toml");

#[test]
fn it_loads() {
    let options = LoadOptions { file: Some(PATH.into()), ..LoadOptions::default() };
    let config = Config::load(&options).unwrap_or_else(|problems| panic!("{problems}"));
    let ids: Vec<String> = config.models.iter().map(|m| m.id.to_string()).collect();
    assert_eq!(ids, ["chat", "shapes", "colours"]);
    assert_eq!(config.server, Server::default());
    assert_eq!(config.memory, Memory::default());
    assert_eq!(config.jobs, Jobs::default());
    assert_eq!(config.stages.limits, Limits::default());
}

#[test]
fn what_it_shows_as_an_example_is_read_too() {
    let text = std::fs::read_to_string(PATH).unwrap();
    let example: String = text
        .lines()
        .skip_while(|line| *line != "# [[pipelines]]")
        .map(|line| line.trim_start_matches("# ").to_owned() + "\n")
        .collect();
    let config = House::new(&example).load().unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.pipelines[0].steps.len(), 7);
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../wasm-stages/built");
    let stages: Vec<String> = std::fs::read_dir(built)
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().path().file_stem()?.to_str()?.to_owned()))
        .collect();
    let stages: Vec<&str> = stages.iter().map(String::as_str).collect();
    config.check_stages(&stages).unwrap_or_else(|problems| panic!("{problems}"));
}

#[test]
fn the_routing_that_it_shows_is_read_too() {
    let text = std::fs::read_to_string(PATH).unwrap();
    let example =
        text.lines().skip_while(|line| *line != "# [routing]").take_while(|line| line.starts_with('#'));
    let example: String =
        example.map(|line| line.strip_prefix("# ").unwrap_or("").to_owned() + "\n").collect();
    let folder = Path::new(PATH).parent().unwrap();
    let house = House::new(
        &(text.replace("artifact = \"", &format!("artifact = \"{}/", folder.display()))
            + &example.replace("artifact = \"", &format!("artifact = \"{}/", folder.display()))),
    );
    let config = house.load().unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((config.routes.len(), config.ladders.len(), config.aliases.len()), (1, 1, 1));
}

/// The TOML in a page of the book, block by block.
fn blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once("```toml\n") {
        let (block, after) = after.split_once("```").unwrap();
        blocks.push(block.to_owned());
        rest = after;
    }
    blocks
}

#[test]
fn the_examples_of_the_page_about_routing_are_read() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/routing.md");
    let blocks = blocks(&std::fs::read_to_string(page).unwrap());
    assert_eq!(blocks.len(), 7);
    for block in blocks {
        // What an example speaks of without showing it.
        let key = |name| format!("[[server.keys]]\nname = \"{name}\"\nsha256 = \"{}\"\n", "0".repeat(64));
        let models = ["large", "medium", "small", "coder", "large-q4", "large-cpu", "vectors"]
            .map(|id| format!("[[models]]\nid = \"{id}\"\npath = \"chat.gguf\"\ntask = \"chat\"\n"))
            .into_iter()
            .filter(|model| !block.contains(model.lines().nth(1).unwrap()));
        let toml = format!("{block}\n{}{}", key("batch"), models.collect::<String>());
        let house = House::new(&toml);
        std::fs::create_dir_all(house.folder.path().join("models/large")).unwrap();
        house.load().unwrap_or_else(|problems| panic!("{block}\n{problems}"));
    }
}

#[test]
fn it_explains_every_key_there_is() {
    let text = std::fs::read_to_string(PATH).unwrap();
    let schema = Config::json_schema();
    let sections = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    let keys = sections.filter_map(|section| section["properties"].as_object()).flat_map(|p| p.keys());
    for key in keys {
        let written = [format!("{key} ="), format!("[{key}"), format!(".{key}]"), format!("{key}.")];
        assert!(written.iter().any(|w| text.contains(w)), "`{key}` is not in pajamas.toml");
    }
}
