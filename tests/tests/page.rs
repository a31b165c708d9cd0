//! The page at `/`, as people use it: in a browser.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::path::Path;

use pajamas_journeys::browser::Browser;
use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{House, Server, model_entry, never_end, run};
use serde_json::{Value, json};

const VIEWS: [&str; 7] = ["chat", "images", "speech", "models", "requests", "routes", "plugins"];
/// The last answer's text in the page, and the note below it.
const ANSWER: &str = "[...document.querySelectorAll('.turn.model .text')].at(-1)?.innerText";
const NOTE: &str = "[...document.querySelectorAll('.turn.model .note')].at(-1)?.innerText";

/// The repository's own models; the conversation's context is so long that an answer does not end by itself.
fn server(more: &str) -> Server {
    let chat = "task = \"chat\"\noptions = { threads = 1, context_length = 65536 }";
    let mut toml = more.to_owned() + &model_entry("chat", &repository().join("models/chat/model.gguf"), chat);
    for (id, task) in [("shapes", "detect"), ("colours", "classify")] {
        let folder = repository().join("models").join(task);
        toml += &format!("[[models]]\nid = \"{id}\"\nartifact = '{}'\ntask = \"{task}\"\n", folder.display());
    }
    Server::start(House::new(&toml).unwrap()).unwrap()
}

/// A server and its page.
fn page(view: &str) -> Option<(Server, Browser)> {
    let mut browser = Browser::start().unwrap()?;
    let server = server("");
    browser.resize(1200, 800).unwrap();
    browser.open(&format!("http://{}/#/{view}", server.authority())).unwrap();
    browser.wait("document.querySelector('#live').innerText === 'live'").unwrap();
    if view == "chat" {
        browser.wait("document.querySelector('#chat-model').value === 'chat'").unwrap();
    }
    Some((server, browser))
}

/// Lets answers go on for ever: the page asks as always, and a bias is added on the way.
fn endless(server: &Server, browser: &mut Browser) {
    let bias = never_end(server).unwrap();
    let patch = format!(
        "{{ const real = fetch;
            window.fetch = (path, init) => real(path, path.includes('/chat/')
                ? {{ ...init, body: JSON.stringify({{ ...JSON.parse(init.body), logit_bias: {bias} }}) }} : init); }}"
    );
    browser.eval(&patch).unwrap();
}

fn set(browser: &mut Browser, field: &str, value: &str) {
    browser.eval(&format!("document.querySelector('#{field}').value = '{value}'")).unwrap();
}

fn say(browser: &mut Browser, text: &str) {
    browser.eval("document.querySelector('#chat-input').focus()").unwrap();
    browser.write(text).unwrap();
    browser.press("Enter").unwrap();
}

/// Waits for `count` entries with these words in the page's request log, and gives the latest. An entry may come after
/// that of a later request: it is told when the last of its request has gone.
fn logged(browser: &mut Browser, words: &str, count: usize) -> Value {
    let rows = format!(
        "[...document.querySelectorAll('#requests-rows tr')].map((row) => row.textContent)
            .filter((text) => text.includes('{words}'))"
    );
    browser.wait(&format!("{rows}.length === {count} && {rows}[0]")).unwrap()
}

fn busy(server: &Server) -> f64 {
    let text = server.get("/metrics").unwrap().body;
    let line = "pajamas_engine{model=\"chat\",number=\"busy\"} ";
    text.lines().find_map(|l| l.strip_prefix(line)).unwrap().parse().unwrap()
}

#[test]
fn the_page_is_part_of_the_program_and_asks_nobody_else() {
    let Some((server, mut browser)) = page("chat") else { return };
    for view in VIEWS {
        browser.eval(&format!("document.querySelector('#tab-{view}').click()")).unwrap();
        browser.wait(&format!("!document.querySelector('#{view}').hidden")).unwrap();
    }
    browser.wait("document.querySelector('.backends')").unwrap();
    assert_eq!(browser.problems(server.authority()).unwrap(), Vec::<String>::new());
}

#[test]
fn an_answer_comes_in_pieces_and_says_what_it_used() {
    let Some((server, mut browser)) = page("chat") else { return };
    endless(&server, &mut browser);
    set(&mut browser, "chat-max-tokens", "3000");
    browser
        .eval(&format!(
            "window.states = []; new MutationObserver(() => states.push({ANSWER}.length))
                .observe(document.querySelector('#chat-turns'), {{ childList: true, subtree: true }})"
        ))
        .unwrap();
    say(&mut browser, "What is 2 plus 3?");
    let note = browser.wait(NOTE).unwrap().to_string();
    let parts = ["3000 tokens", "token/s", "first after", "prompt", "cut at", "gguf/gguf on cpu"];
    assert!(parts.iter().all(|part| note.contains(part)), "{note}");
    let states = browser.eval("states").unwrap();
    let mut lengths: Vec<u64> = states.as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect();
    lengths.dedup();
    assert!(lengths.is_sorted() && lengths.len() > 3, "it grows step by step: {lengths:?}");
    let row = logged(&mut browser, "/v1/chat/completions", 1);
    let parts = ["chat", "gguf/gguf on cpu", "200", "prompt", "decode", "3000"];
    assert!(parts.iter().all(|part| row.as_str().unwrap().contains(part)), "{row}");
    // It begins anew when that is asked for.
    browser.eval("document.querySelector('#chat-new').click()").unwrap();
    assert_eq!(browser.eval("document.querySelectorAll('.turn').length").unwrap(), 0);
}

#[test]
fn the_router_shows_its_ladders_and_why_it_took_a_model() {
    let Some(mut browser) = Browser::start().unwrap() else { return };
    let ladder = "[[ladders]]\nid = \"answers\"\nsteps = [[\"short\"], [\"chat\"]]\n";
    let model = repository().join("models/chat/model.gguf");
    let short = model_entry("short", &model, "task = \"chat\"\noptions = { context_length = 8 }");
    let server = server(&(ladder.to_owned() + &short));
    browser.resize(1200, 800).unwrap();
    browser.open(&format!("http://{}/#/routes", server.authority())).unwrap();
    browser.wait("document.querySelector('.rungs .badge')?.innerText === 'unloaded'").unwrap();
    let content = "What do llamas wear at night? ".repeat(8);
    let body =
        json!({ "model": "answers", "messages": [{ "role": "user", "content": content }], "max_tokens": 1 });
    let answer = server.post_json("/v1/chat/completions", &body).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let line = "document.querySelector('#routes-decisions summary')";
    let text =
        browser.wait(&format!("{line}?.innerText.includes('→') && {line}.innerText")).unwrap().to_string();
    let parts = ["chat · answers", "asked for", "in place of short", "ms"];
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    browser.eval(&format!("{line}.click()")).unwrap();
    let why = browser.wait("document.querySelector('#routes-decisions details[open]')?.innerText").unwrap();
    let parts = ["step 1 short", "and it takes 8", "step 2 chat", "taken"];
    assert!(parts.iter().all(|part| why.as_str().unwrap().contains(part)), "{why}");
    let states =
        browser.eval("[...document.querySelectorAll('.rungs .badge')].map((b) => b.innerText)").unwrap();
    assert_eq!(states, json!(["unloaded", "ready"]));
    assert_eq!(browser.problems(server.authority()).unwrap(), Vec::<String>::new());
}

#[test]
fn stop_stops() {
    let Some((server, mut browser)) = page("chat") else { return };
    endless(&server, &mut browser);
    for (way, stopped) in [("button", 1), ("key", 2)] {
        say(&mut browser, "Hello");
        browser.wait(&format!("({ANSWER} ?? '').length > 200")).unwrap();
        assert!(busy(&server) > 0.0);
        match way {
            "button" => drop(browser.eval("document.querySelector('#chat-stop').click()").unwrap()),
            _ => browser.press("Escape").unwrap(),
        }
        browser.wait(&format!("{NOTE} === 'Stopped.'")).unwrap();
        // Each look is an answer of the server; the answer alone would go on for minutes.
        while busy(&server) > 0.0 {}
        logged(&mut browser, "cancelled", stopped);
        assert!(browser.eval(ANSWER).unwrap().as_str().unwrap().len() > 100, "what was said stays");
        browser.eval("document.querySelector('#chat-new').click()").unwrap();
    }
}

#[test]
fn a_conversation_needs_no_mouse() {
    let Some((_server, mut browser)) = page("chat") else { return };
    let mut stops = 0;
    while browser.eval("document.activeElement.id").unwrap() != "chat-input" {
        browser.press("Tab").unwrap();
        // Of the message it is the frame around it that changes.
        let seen = "document.activeElement.id === 'chat-input' \
            || getComputedStyle(document.activeElement).outlineStyle !== 'none'";
        assert_eq!(browser.eval(seen).unwrap(), true, "the focus cannot be seen");
        stops += 1;
        assert!(stops < 20, "the message cannot be reached");
    }
    browser.write("What is 2 plus 3?").unwrap();
    browser.press("Enter").unwrap();
    browser.wait(NOTE).unwrap();
    assert_ne!(browser.eval(ANSWER).unwrap(), "");
    assert_eq!(browser.eval("document.activeElement.id").unwrap(), "chat-input", "the next can be typed");
    assert_eq!(browser.eval("document.querySelector('.turn.model').ariaBusy").unwrap(), "false");

    browser.eval("document.querySelector('#tab-chat').focus()").unwrap();
    browser.press("ArrowRight").unwrap();
    browser.wait("!document.querySelector('#images').hidden").unwrap();
    assert_eq!(browser.eval("document.activeElement.id").unwrap(), "tab-images");
}

#[test]
fn a_picture_gets_its_boxes_and_a_broken_one_its_error() {
    let Some((_server, mut browser)) = page("images") else { return };
    browser.wait("document.querySelector('#images-model').value === 'shapes'").unwrap();
    let sample = repository().join("models/sample.png");
    browser.choose("#images-file", &[&sample]).unwrap();
    browser.wait("document.querySelector('.box')").unwrap();
    let cli = run(["detect", "--json", sample.to_str().unwrap()]).unwrap().json().unwrap().remove(0);
    let found = cli["detections"].as_array().unwrap();
    let shown = "[...document.querySelectorAll('.found tbody th')].map((cell) => cell.innerText)";
    let labels: Vec<_> = found.iter().map(|one| one["label"].clone()).collect();
    assert_eq!(browser.eval(shown).unwrap(), Value::Array(labels));
    // A box lies where its numbers say, at the size at which the picture is shown.
    let place = browser
        .eval(
            "(() => { const of = (e) => document.querySelector(e).getBoundingClientRect();
                const [box, image] = [of('.box'), of('.frame img')];
                return [(box.left - image.left) / image.width, (box.bottom - image.top) / image.height]; })()",
        )
        .unwrap();
    let size = |key: &str| cli[key].as_f64().unwrap();
    let corner = |index: usize| found[0]["box"][index].as_f64().unwrap();
    for (shown, wanted) in [(0, corner(0) / size("width")), (1, corner(3) / size("height"))] {
        assert!((place[shown].as_f64().unwrap() - wanted).abs() < 0.01, "{place}");
    }
    logged(&mut browser, "/v1/images/detect", 1);

    browser
        .eval("{ const s = document.querySelector('#images-model'); s.value = 'colours'; s.dispatchEvent(new Event('change')); }")
        .unwrap();
    browser.wait("document.querySelector('#images-result').innerText.includes('heart')").unwrap();

    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.png");
    std::fs::write(&broken, "no picture").unwrap();
    browser.choose("#images-file", &[&broken]).unwrap();
    let said = browser.wait("document.querySelector('#images-result [role=alert]')?.innerText").unwrap();
    assert!(said.as_str().unwrap().contains("image-unsupported"), "{said}");
    logged(&mut browser, "image-unsupported", 1);
}

#[test]
fn a_text_is_spoken_and_one_that_cannot_be_says_why() {
    let Some(mut browser) = Browser::start().unwrap() else { return };
    let voice =
        model_entry("voice", &repository().join("tests/fixtures/voice/piper.onnx"), "task = \"speak\"");
    let server = server(&voice);
    browser.resize(1200, 800).unwrap();
    browser.open(&format!("http://{}/#/speech", server.authority())).unwrap();
    browser.wait("document.querySelector('#speech-model').value === 'voice'").unwrap();
    let say = |browser: &mut Browser, text: &str| {
        set(browser, "speech-input", text);
        browser.eval("document.querySelector('#speech-form').requestSubmit()").unwrap();
    };
    say(&mut browser, "Hi. Ho.");
    let seconds = "document.querySelector('#speech-player').duration";
    let long = browser.wait(&format!("{seconds} > 0 && {seconds}")).unwrap();
    // Eighteen ids, each of 100 samples at 8 kHz: the browser read the sound.
    assert!((long.as_f64().unwrap() - 0.225).abs() < 1e-3, "{long}");
    // The browser itself logs a refusal.
    assert_eq!(browser.problems(server.authority()).unwrap(), Vec::<String>::new());
    set(&mut browser, "speech-voice", "carl");
    say(&mut browser, "Hi.");
    let said = browser.wait("document.querySelector('#speech-wrong [role=alert]')?.innerText").unwrap();
    assert!(said.as_str().unwrap().contains("voice-unknown"), "{said}");
}

#[test]
fn a_picture_in_a_conversation_is_sent_and_a_refusal_is_shown() {
    let Some((_server, mut browser)) = page("chat") else { return };
    browser.choose("#chat-attach", &[&repository().join("models/sample.png")]).unwrap();
    browser.wait("document.querySelector('#chat-files img')").unwrap();
    say(&mut browser, "What is this?");
    let said = browser.wait("document.querySelector('.turn [role=alert]')?.innerText").unwrap();
    assert!(said.as_str().unwrap().contains("unsupported"), "{said}");
    // It can be changed and sent again.
    assert_eq!(browser.eval("document.querySelector('#chat-input').value").unwrap(), "What is this?");
    assert_eq!(browser.eval("document.querySelectorAll('#chat-files img').length").unwrap(), 1);
}

#[test]
fn models_are_loaded_by_hand_and_their_memory_is_drawn() {
    let Some((_server, mut browser)) = page("models") else { return };
    let card =
        "[...document.querySelectorAll('#models-list .card')].find((c) => c.textContent.startsWith('chat'))";
    browser.wait(&format!("{card}?.textContent.includes('unloaded')")).unwrap();
    browser.eval("document.querySelector('[aria-label=\"Load chat\"]').click()").unwrap();
    browser.wait(&format!("{card}.textContent.includes('ready')")).unwrap();
    let bar = "document.querySelector('[role=meter]')";
    browser.wait(&format!("{bar}.children.length > 0 && {bar}.ariaValueNow > 0")).unwrap();
    let legend = browser.wait("document.querySelector('.legend').innerText").unwrap();
    assert!(
        legend.as_str().unwrap().contains("chat") && legend.as_str().unwrap().contains("MiB"),
        "{legend}"
    );
    browser.eval("document.querySelector('[aria-label=\"Pin chat\"]').click()").unwrap();
    browser.wait("document.querySelector('[aria-label=\"Unpin chat\"]')").unwrap();
    browser.eval("document.querySelector('[aria-label=\"Unload chat\"]').click()").unwrap();
    browser.wait(&format!("{card}.textContent.includes('unloaded') && {bar}.children.length === 0")).unwrap();
}

#[test]
fn everything_has_a_name_and_fits_a_small_screen() {
    let Some((_server, mut browser)) = page("chat") else { return };
    browser.resize(360, 640).unwrap();
    say(&mut browser, &format!("{} What is 2 plus 3?", "x".repeat(120)));
    browser.wait(NOTE).unwrap();
    browser.eval("document.querySelector('#chat-settings').open = true").unwrap();
    for view in VIEWS {
        browser.eval(&format!("document.querySelector('#tab-{view}').click()")).unwrap();
        if view == "images" {
            browser.choose("#images-file", &[&repository().join("models/sample.png")]).unwrap();
            browser.wait("document.querySelector('.box')").unwrap();
        }
        if view == "plugins" {
            browser.wait("document.querySelector('.backends')").unwrap();
        }
        let wide = "[...document.querySelectorAll('body, .view:not([hidden]), .view:not([hidden]) *')]
            .filter((e) => !e.closest('pre, .hidden') && e.getBoundingClientRect().right > 361)
            .map((e) => e.outerHTML.slice(0, 100))";
        assert_eq!(browser.eval(wide).unwrap(), json!([]), "{view}");
        assert_eq!(browser.eval("document.documentElement.scrollWidth").unwrap(), 360, "{view}");
        let roles = ["button", "textbox", "combobox", "spinbutton", "tab", "meter", "link", "table", "list"];
        let all = browser.accessible().unwrap();
        assert!(all.iter().filter(|(role, _)| role == "tab").count() == VIEWS.len(), "{all:?}");
        let named = |role: &str| roles.contains(&role) && role != "list";
        let unnamed: Vec<_> =
            all.iter().filter(|(role, name)| named(role) && name.trim().is_empty()).collect();
        assert!(unnamed.is_empty(), "{view}: {unnamed:?}");
    }
}

#[test]
fn dark_and_light_are_the_systems_or_the_persons_and_can_be_read() {
    let Some((_server, mut browser)) = page("models") else { return };
    browser.wait("document.querySelector('.card .muted')").unwrap();
    let ground = "getComputedStyle(document.body).backgroundColor";
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).unwrap();
        grounds.push(browser.eval(ground).unwrap());
        // WCAG's contrast of every text with what lies below it.
        let poor = "(() => {
            const rgb = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
            const light = (c) => { const [r, g, b] = c.slice(0, 3)
                .map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
            const below = (e) => { for (; e; e = e.parentElement) {
                const c = rgb(getComputedStyle(e).backgroundColor); if (c.length === 3) return c; } return [255, 255, 255]; };
            return [...document.querySelectorAll('body *')]
                .filter((e) => e.offsetParent && !e.disabled && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
                .map((e) => { const [a, b] = [light(rgb(getComputedStyle(e).color)), light(below(e))].sort((x, y) => y - x);
                    return [e.outerHTML.slice(0, 80), (a + 0.05) / (b + 0.05)]; })
                .filter(([, contrast]) => contrast < 4.5); })()";
        assert_eq!(browser.eval(poor).unwrap(), json!([]), "{scheme}");
    }
    assert_ne!(grounds[0], grounds[1]);
    // The person's choice comes before the system's, and lasts.
    browser.eval("document.querySelector('#theme').click()").unwrap();
    assert_eq!(browser.eval(ground).unwrap(), grounds[0]);
    browser.reload().unwrap();
    browser.wait("document.documentElement.dataset.theme === 'light'").unwrap();
}

#[test]
fn a_key_is_asked_for_once() {
    let Some(mut browser) = Browser::start().unwrap() else { return };
    let made =
        run(["keys", "new", "--json", "--scopes", "infer,admin", "me"]).unwrap().json().unwrap().remove(0);
    let entry = &made["entry"];
    let server = server(&format!(
        "[[server.keys]]\nname = \"me\"\nsha256 = {}\nscopes = {}\n",
        entry["sha256"], entry["scopes"]
    ));
    browser.open(&format!("http://{}/", server.authority())).unwrap();
    for key in ["pj-wrong", made["key"].as_str().unwrap()] {
        browser
            .wait("document.querySelector('#key-dialog').open && document.activeElement.id === 'key-input'")
            .unwrap();
        browser.write(key).unwrap();
        browser.press("Enter").unwrap();
        if key == "pj-wrong" {
            browser
                .wait("document.querySelector('#key-why').innerText.includes('none of this server')")
                .unwrap();
        }
    }
    browser.wait("document.querySelector('#chat-model').value === 'chat'").unwrap();
    browser.wait("document.querySelector('#live').innerText === 'live'").unwrap();
    browser.reload().unwrap();
    browser.wait("document.querySelector('#live').innerText === 'live'").unwrap();
    assert_eq!(browser.eval("document.querySelector('#key-dialog').open").unwrap(), false);
}

#[test]
fn a_plugin_is_shown_with_the_reasons() {
    let Some(mut browser) = Browser::start().unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("odd")).unwrap();
    std::fs::write(folder.path().join("odd/plugin.toml"), "no manifest").unwrap();
    let server = server(&format!("[plugins]\nsearch = ['{}']\n", folder.path().display()));
    browser.open(&format!("http://{}/#/plugins", server.authority())).unwrap();
    let text =
        browser.wait("document.querySelector('.backends') && document.querySelector('#plugins').innerText");
    let text = text.unwrap();
    for part in ["refused", "plugin-manifest-invalid", "in use", "score 100", "embedded, always there"] {
        assert!(text.as_str().unwrap().contains(part), "{part}: {text}");
    }
}

#[cfg(unix)]
#[test]
fn an_open_page_does_not_keep_the_server() {
    let Some((server, mut browser)) = page("models") else { return };
    let (status, said) = server.stop().unwrap();
    assert!(status.success(), "{status}: {said}");
    browser.wait("document.querySelector('#live').innerText === 'offline'").unwrap();
}

/// Screenshots for people, where `PAJAMAS_SCREENSHOTS` names a folder.
#[test]
fn the_page_can_be_looked_at() {
    let Some(folder) = std::env::var_os("PAJAMAS_SCREENSHOTS") else { return };
    let Some((_server, mut browser)) = page("chat") else { return };
    let shoot = |browser: &mut Browser, name: &str| {
        browser.eval("document.activeElement?.blur()").unwrap();
        browser.screenshot(&Path::new(&folder).join(format!("{name}.png"))).unwrap();
    };
    shoot(&mut browser, "chat-empty");
    for question in ["What is 2 plus 3?", "Tell me about llamas.", "Can you count to 9?"] {
        let turns = browser.eval("document.querySelectorAll('.turn.model').length").unwrap();
        say(&mut browser, question);
        browser
            .wait(&format!("document.querySelectorAll('.turn.model').length > {turns} && {NOTE}"))
            .unwrap();
    }
    browser.choose("#chat-attach", &[&repository().join("models/sample.png")]).unwrap();
    browser.wait("document.querySelector('#chat-files img')").unwrap();
    for (size, width, height) in [("desktop", 1200, 800), ("phone", 360, 720)] {
        browser.resize(width, height).unwrap();
        for scheme in ["light", "dark"] {
            browser.prefer(scheme).unwrap();
            for view in VIEWS {
                browser.eval(&format!("document.querySelector('#tab-{view}').click()")).unwrap();
                if view == "images" {
                    browser.choose("#images-file", &[&repository().join("models/sample.png")]).unwrap();
                    browser.wait("document.querySelector('.box')").unwrap();
                }
                if view == "plugins" {
                    browser.wait("document.querySelector('.backends')").unwrap();
                }
                browser
                    .wait("!document.querySelector('.view:not([hidden])').getAnimations().length")
                    .unwrap();
                shoot(&mut browser, &format!("{view}-{size}-{scheme}"));
            }
        }
    }
    browser.eval("document.querySelector('#tab-chat').click()").unwrap();
    say(&mut browser, "What is this?");
    browser.wait("document.querySelector('.turn [role=alert]')").unwrap();
    browser.resize(1200, 800).unwrap();
    shoot(&mut browser, "chat-refused");
}
