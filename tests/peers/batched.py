#!/usr/bin/env python3
"""The peer of `cargo xtask bench` for many clients: llama.cpp's own batched decoding, as its batched-bench does it, driven
through llama-cpp-python's bindings on the same file: all prompts first, then one token of each sequence a batch.

Takes scenarios as a JSON list of {"clients", "prompt", "shared"}; prints a JSON list of {"tokens_per_second",
"first_token_ms"}, the fastest of several repetitions.
"""
import argparse, json, time

import llama_cpp as L

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--tokens", type=int, default=64)
parser.add_argument("--repeat", type=int, default=3)
parser.add_argument("scenarios", type=json.loads)
args = parser.parse_args()

quiet = L.llama_log_callback(lambda *_: None)  # kept: the library calls it
L.llama_log_set(quiet, None)
L.llama_backend_init()
model = L.llama_model_load_from_file(args.model.encode(), L.llama_model_default_params())
vocab_size = L.llama_vocab_n_tokens(L.llama_model_get_vocab(model))


def decode(context, rows):
    """Computes (token, position, sequence, wants logits) rows."""
    for start in range(0, len(rows), 512):
        part = rows[start:start + 512]
        batch = L.llama_batch_init(len(part), 0, 1)
        batch.n_tokens = len(part)
        for i, (token, position, sequence, wants) in enumerate(part):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wants
            batch.seq_id[i][0] = sequence
        assert L.llama_decode(context, batch) == 0
        L.llama_batch_free(batch)


def run(context, sampler, clients, prompt, shared):
    L.llama_memory_clear(L.llama_get_memory(context), True)
    begin = time.perf_counter()
    decode(context, [(10 + i * 3 % 200, i, 0, False) for i in range(shared)])
    for sequence in range(1, clients if shared else 1):
        L.llama_memory_seq_cp(L.llama_get_memory(context), 0, sequence, -1, -1)
    last = [0] * clients
    for sequence in range(clients):
        rows = [(10 + (i * 7 + sequence * 13) % 200, shared + i, sequence, i + 1 == prompt) for i in range(prompt)]
        decode(context, rows)
        last[sequence] = L.llama_sampler_sample(sampler, context, -1)
    first = time.perf_counter()
    for step in range(args.tokens - 1):
        decode(context, [(last[s], shared + prompt + step, s, True) for s in range(clients)])
        last = [L.llama_sampler_sample(sampler, context, s) for s in range(clients)]
    end = time.perf_counter()
    return clients * args.tokens / (end - begin), (first - begin) * 1e3


results = []
for scenario in args.scenarios:
    params = L.llama_context_default_params()
    clients = scenario["clients"]
    params.n_ctx = clients * (scenario["prompt"] + scenario["shared"] + args.tokens)
    params.n_seq_max, params.n_batch, params.n_threads, params.n_threads_batch = clients, 512, args.threads, args.threads
    context = L.llama_init_from_model(model, params)
    sampler = L.llama_sampler_init_greedy()
    runs = [run(context, sampler, **scenario) for _ in range(args.repeat + 1)][1:]
    results.append({"tokens_per_second": max(r[0] for r in runs), "first_token_ms": min(r[1] for r in runs)})
    L.llama_free(context)
print(json.dumps(results))
