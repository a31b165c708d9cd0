"""Writes the ONNX graphs of the Hugging Face folder, laid out as Optimum does, and proves that they compute what torch does.

    python models/listen/export_onnx.py
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from network import Whisper
from train import load

HERE = Path(__file__).parent
OPSET, IR_VERSION, TOLERANCE = 17, 8, 2e-3
# Larger constants are stored in half precision; the graph widens them once, when it is loaded.
SMALL = 512


class First(nn.Module):
    """The decoder's first run: all of a prompt. Leaves the cache."""

    def __init__(self, whole: Whisper) -> None:
        super().__init__()
        self.decoder = whole.decoder

    def forward(self, ids: Tensor, heard: Tensor) -> tuple[Tensor, ...]:
        decoder = self.decoder
        x = decoder.embed_tokens(ids) + decoder.embed_positions.weight[:ids.shape[1]]
        ahead = torch.full((ids.shape[1], ids.shape[1]), -1e9).triu(1)
        cache: list[Tensor] = []
        for layer in decoder.layers:
            y = layer.self_attn_layer_norm(x)
            own, of_heard = layer.self_attn.seen(y), layer.encoder_attn.seen(heard)
            x = x + attend(layer.self_attn, y, *own, ahead)
            x = x + attend(layer.encoder_attn, layer.encoder_attn_layer_norm(x), *of_heard)
            x = x + layer.fc2(nn.functional.gelu(layer.fc1(layer.final_layer_norm(x))))
            cache += [*own, *of_heard]
        return decoder.layer_norm(x) @ decoder.embed_tokens.weight.T, *cache


class Later(nn.Module):
    """One more token."""

    def __init__(self, whole: Whisper) -> None:
        super().__init__()
        self.decoder = whole.decoder

    def forward(self, ids: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        decoder = self.decoder
        before = past[0].shape[2]
        x = decoder.embed_tokens(ids) + decoder.embed_positions.weight[before:before + ids.shape[1]]
        cache: list[Tensor] = []
        for at, layer in enumerate(decoder.layers):
            key, value, heard_key, heard_value = past[4 * at:4 * at + 4]
            y = layer.self_attn_layer_norm(x)
            new = layer.self_attn.seen(y)
            own = [torch.cat([key, new[0]], dim=2), torch.cat([value, new[1]], dim=2)]
            x = x + attend(layer.self_attn, y, *own)
            x = x + attend(layer.encoder_attn, layer.encoder_attn_layer_norm(x), heard_key, heard_value)
            x = x + layer.fc2(nn.functional.gelu(layer.fc1(layer.final_layer_norm(x))))
            cache += own
        return decoder.layer_norm(x) @ decoder.embed_tokens.weight.T, *cache


def attend(attention: nn.Module, x: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """`Attention.forward` in operators that every engine knows."""
    query = attention.split(attention.q_proj(x))
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    mixed = torch.softmax(scores if mask is None else scores + mask, dim=-1) @ value
    return attention.out_proj(mixed.transpose(1, 2).flatten(-2))


def names(layers: int, which: tuple[str, ...]) -> list[str]:
    """The cache's tensors: `0.decoder.key` and so on."""
    return [f"{layer}.{side}.{part}" for layer in range(layers) for side in which for part in ("key", "value")]


def write(graph: nn.Module, given: tuple[Tensor, ...], inputs: list[str], outputs: list[str], free: dict[str, dict[int, str]], path: Path) -> None:
    """Exports, stores large constants in half precision, and compares the file with torch."""
    buffer = io.BytesIO()
    torch.onnx.export(graph, given, buffer, input_names=inputs, output_names=outputs, dynamic_axes=free, opset_version=OPSET,
                      do_constant_folding=True, dynamo=False)
    model = onnx.load_from_string(buffer.getvalue())
    model.ir_version, model.producer_name, model.producer_version = IR_VERSION, "pajamas", "1"
    widened = []
    for constant in model.graph.initializer:
        if constant.data_type == onnx.TensorProto.FLOAT and np.prod(constant.dims) > SMALL:
            name = constant.name
            constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant).astype(np.float16), f"{name}.half"))
            widened.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*widened, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    with torch.no_grad():
        wanted = graph(*given)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    got = session.run(None, {name: tensor.numpy() for name, tensor in zip(inputs, given)})
    worst = max(float(np.max(np.abs(g - w.numpy()) / np.maximum(np.abs(w.numpy()), 1))) for g, w in zip(got, wanted))
    assert worst < TOLERANCE, f"onnxruntime and torch differ by {worst}"
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, onnxruntime differs from torch by {worst:.1e}", flush=True)


def main() -> None:
    torch.manual_seed(1)
    network = load(HERE / "hf")
    layers = network.config.decoder_layers
    every, growing = names(layers, ("decoder", "encoder")), names(layers, ("decoder",))
    features = torch.randn(1, network.config.num_mel_bins, 3000)
    with torch.no_grad():
        heard = network.encoder(features)
        _, *cache = First(network)(torch.tensor([[5, 6, 7]]), heard)
    rows, tokens, past = {0: "batch"}, {0: "batch", 1: "tokens"}, {0: "batch", 2: "past"}
    write(network.encoder, (features,), ["input_features"], ["last_hidden_state"], {"input_features": rows, "last_hidden_state": rows}, HERE / "encoder_model.onnx")
    present = {f"present.{name}": past if "decoder" in name else rows for name in every}
    write(First(network), (torch.tensor([[5, 6, 7]]), heard), ["input_ids", "encoder_hidden_states"], ["logits", *present],
          {"input_ids": tokens, "encoder_hidden_states": rows, "logits": tokens, **present}, HERE / "decoder_model.onnx")
    given = {f"past_key_values.{name}": past if "decoder" in name else rows for name in every}
    left = {f"present.{name}": {0: "batch", 2: "past + tokens"} for name in growing}
    write(Later(network), (torch.tensor([[8]]), *cache), ["input_ids", *given], ["logits", *left],
          {"input_ids": tokens, "logits": tokens, **given, **left}, HERE / "decoder_with_past_model.onnx")
    for name in ("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json"):
        shutil.copy(HERE / "hf" / name, HERE / name)


if __name__ == "__main__":
    main()
