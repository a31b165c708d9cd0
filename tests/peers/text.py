#!/usr/bin/env python3
"""The peer of `pajamas bench` for text: llama.cpp's own library, driven by llama-cpp-python on the same file.

Prints one JSON object: tokens per second of the fastest repetition, prompt and decode apart.
"""
import argparse, json, time

import llama_cpp


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()

    model = llama_cpp.Llama(args.model, n_ctx=args.prompt_tokens + args.tokens, n_batch=512, n_threads=args.threads,
                            n_threads_batch=args.threads, verbose=False)
    prompt_rate = decode_rate = 0.0
    for round_ in range(args.repeat + 1):
        ids = [10 + (i * 7 + round_ * 13) % 200 for i in range(args.prompt_tokens)]
        model.reset()
        start = time.perf_counter()
        model.eval(ids)
        token = model.sample(temp=0.0)
        first = time.perf_counter()
        for _ in range(args.tokens - 1):
            model.eval([token])
            token = model.sample(temp=0.0)
        end = time.perf_counter()
        if round_:  # the first one warms up
            prompt_rate = max(prompt_rate, args.prompt_tokens / (first - start))
            decode_rate = max(decode_rate, (args.tokens - 1) / (end - first))
    print(json.dumps({"prompt_tokens_per_second": prompt_rate, "decode_tokens_per_second": decode_rate}))


if __name__ == "__main__":
    main()
