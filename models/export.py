"""From a trained network to an ONNX file whose metadata says how to use it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

OPSET, IR_VERSION = 17, 8
TOLERANCE = 1e-4


def to_onnx(network: nn.Module, example: Tensor, path: Path, *, inputs: str, outputs: str, batched: bool, metadata: dict[str, str]) -> None:
    """Writes the file and proves that onnxruntime computes what torch does.

    With `batched` the first dimension is free. Raises `AssertionError` when the two disagree by more than `TOLERANCE`
    (relative to 1 for small values).
    """
    network.eval()
    buffer = io.BytesIO()
    axes = {inputs: {0: "batch"}, outputs: {0: "batch"}} if batched else None
    torch.onnx.export(network, (example,), buffer, input_names=[inputs], output_names=[outputs], dynamic_axes=axes,
                      opset_version=OPSET, do_constant_folding=True, dynamo=False)
    model = onnx.load_from_string(buffer.getvalue())
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version, model.doc_string = "pajamas", "1", ""
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)

    with torch.inference_mode():
        wanted = network(example).numpy()
    (got,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {inputs: example.numpy()})
    worst = float(np.max(np.abs(got - wanted) / np.maximum(np.abs(wanted), 1)))
    assert worst < TOLERANCE, f"onnxruntime and torch differ by {worst}"
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, onnxruntime differs from torch by {worst:.1e}", flush=True)
