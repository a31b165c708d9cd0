"""Writes the Hugging Face folder as one GGUF file, with llama.cpp's names, and reads it back to prove it.

    python models/chat/export_gguf.py --hf models/chat/hf --out models/chat/model.gguf
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, GGUFWriter, LlamaFileType, TokenType
from safetensors.numpy import load_file

import evaluate
import tokenizer as tok
from network import Config, Llama

HERE = Path(__file__).parent

NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
OUTER = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}


def gguf_name(name: str) -> str:
    """Hugging Face's name of a tensor as llama.cpp calls it."""
    if name in OUTER:
        return OUTER[name]
    match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.weight", name)
    if match is None:
        raise ValueError(f"no name in GGUF for the tensor {name}")
    return f"blk.{match[1]}.{NAMES[match[2]]}.weight"


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows [head][half][pair] as [head][pair][half]: llama.cpp rotates neighbours, Hugging Face rotates halves."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def halved(weight: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `interleaved`."""
    return weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def heads_of(name: str, config: Config) -> int | None:
    """The number of heads of a rotated projection, under either name."""
    if "q_proj" in name or "attn_q" in name:
        return config.num_attention_heads
    return config.num_key_value_heads if "k_proj" in name or "attn_k" in name else None


def write(folder: Path, path: Path) -> None:
    config = Config.from_json(json.loads((folder / "config.json").read_text()))
    described = json.loads((folder / "tokenizer.json").read_text())
    vocabulary: dict[str, int] = described["model"]["vocab"]
    special = {token["content"] for token in described["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in described["model"]["merges"]]

    writer = GGUFWriter(path, "llama")
    writer.add_name("Pip")
    writer.add_description("pajamas chat demo model")
    writer.add_license("MIT OR Apache-2.0")
    writer.add_file_type(LlamaFileType.MOSTLY_F16)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(vocabulary[tok.END_OF_TEXT])
    writer.add_eos_token_id(vocabulary[tok.IM_END])
    writer.add_eot_token_id(vocabulary[tok.IM_END])
    writer.add_pad_token_id(vocabulary[tok.END_OF_TEXT])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(tok.CHAT_TEMPLATE)

    weights = load_file(folder / "model.safetensors")
    for name in sorted(weights, key=lambda n: (n not in OUTER, [int(part) if part.isdigit() else 0 for part in n.split(".")], n)):
        weight = weights[name]
        heads = heads_of(name, config)
        if heads is not None:
            weight = interleaved(weight, heads)
        # llama.cpp wants vectors in single precision.
        writer.add_tensor(gguf_name(name), weight.astype(np.float32 if weight.ndim == 1 else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_back(path: Path, config: Config) -> Llama:
    """A network filled from the GGUF file alone."""
    back = {gguf: name for name, gguf in OUTER.items()}
    for layer in range(config.num_hidden_layers):
        back |= {f"blk.{layer}.{theirs}.weight": f"model.layers.{layer}.{ours}.weight" for ours, theirs in NAMES.items()}
    weights = {}
    for tensor in GGUFReader(path).tensors:
        weight = np.array(tensor.data)
        heads = heads_of(tensor.name, config)
        weights[back[tensor.name]] = torch.from_numpy(weight if heads is None else halved(weight, heads))
    model = Llama(config)
    model.load_hf(weights)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hf", type=Path, default=HERE / "hf")
    parser.add_argument("--out", type=Path, default=HERE / "model.gguf")
    args = parser.parse_args()
    write(args.hf, args.out)
    model, tokenizer = evaluate.load(args.hf)
    again = read_back(args.out, model.config)
    prompt = tok.render([{"role": "user", "content": "What colour is a banana?"}], prompt=True)
    ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False).ids])
    with torch.inference_mode():
        assert torch.equal(model.logits(model(ids)), again.logits(again(ids))), "the GGUF file computes something else"
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, the same logits; {prompt!r} -> {evaluate.answers(again, tokenizer, [prompt])[0]!r}")


if __name__ == "__main__":
    main()
