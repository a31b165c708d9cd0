//! Documents by how well they answer a query, over HTTP and with a model whose scores are known.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{House, Server, model_entry};
use serde_json::{Value, json};

fn server() -> Server {
    let model = repository().join("tests/fixtures/ranker.gguf");
    let entry = model_entry("ranker", &model, "task = \"rerank\"\noptions = { threads = 1 }");
    Server::start(House::new(&entry).unwrap()).unwrap()
}

fn ask(server: &Server, documents: &Value, more: &Value) -> Value {
    let mut body = json!({ "query": "f g", "documents": documents });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    let answer = server.post_json("/v1/rerank", &body).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json().unwrap()
}

/// Index and score of each result.
fn ranking(answer: &Value) -> Vec<(u64, f64)> {
    let results = answer["results"].as_array().unwrap();
    results.iter().map(|r| (r["index"].as_u64().unwrap(), r["relevance_score"].as_f64().unwrap())).collect()
}

#[test]
fn documents_come_in_the_order_of_their_scores() {
    let server = server();
    let documents = json!(["h i", "j", "k l m", "h i"]);
    let all = ask(&server, &documents, &json!({}));
    let ranked = ranking(&all);
    assert!(ranked.windows(2).all(|pair| pair[0].1 >= pair[1].1), "{ranked:?}");
    let of = |index: u64| ranked.iter().find(|(i, _)| *i == index).unwrap().1;
    assert_eq!(of(0), of(3));
    let place = |index: u64| ranked.iter().position(|(i, _)| *i == index).unwrap();
    assert!(place(0) < place(3), "of equals the earlier document comes first: {ranked:?}");
    // Each alone has the score that it has among others.
    for (index, document) in documents.as_array().unwrap().iter().enumerate() {
        let alone = ranking(&ask(&server, &json!([document]), &json!({})))[0].1;
        assert!((alone - of(index as u64)).abs() < 1e-4, "{document}");
    }
    assert!(all["usage"]["prompt_tokens"].as_u64().unwrap() > 12);
    let best = ask(&server, &documents, &json!({ "top_n": 1, "return_documents": true }));
    assert_eq!(ranking(&best), ranked[..1]);
    assert_eq!(best["results"][0]["document"]["text"], documents[ranked[0].0 as usize]);
    let objects = ask(&server, &json!([{ "text": "h i" }, { "text": "j" }]), &json!({}));
    assert_eq!(ranking(&objects).len(), 2);
}

#[test]
fn what_cannot_be_ranked_is_refused() {
    let server = server();
    for (body, code) in [
        (json!({ "query": "f", "documents": [] }), "invalid-input"),
        (json!({ "query": "f", "documents": ["h ".repeat(40)] }), "context-length-exceeded"),
        (json!({ "query": "f", "documents": [7] }), "invalid-input"),
        (json!({ "documents": ["h"] }), "invalid-input"),
    ] {
        let (status, error) = server.post_json("/v1/rerank", &body).unwrap().refusal().unwrap();
        assert_eq!((status, &error["code"]), (400, &json!(code)), "{body}");
    }
    let (status, _) =
        server.post_json("/v1/embeddings", &json!({ "input": "h" })).unwrap().refusal().unwrap();
    assert_eq!(status, 400);
}
