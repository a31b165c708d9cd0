"""Measures each model on its committed held-out data and writes what makes its folder an artifact: manifest.json and labels.txt.

    python models/package.py           # all of them, or name some

Run it last, after training, export and pictures: the manifest carries the hashes of all files of the artifact.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx

HERE = Path(__file__).parent
PIPELINE_VERSION = "1.0.0"
MADE_AT = "2026-11-21T00:00:00Z"


def measured(name: str) -> dict[str, Any]:
    """What the model's own evaluate.py measures on the committed held-out data."""
    report = subprocess.run([sys.executable, HERE / name / "evaluate.py", "--json"], check=True, capture_output=True, text=True).stdout
    return {**json.loads(report), "data": "held-out"}


# What each model must reach on its held-out data to be handed over.
REQUIRED = {"chat": 0.95, "detect": 0.9, "classify": 0.97}


def parameters_of(model: onnx.ModelProto) -> int:
    return sum(int(math.prod(tensor.dims)) for tensor in model.graph.initializer)


def signature(values: Any) -> list[dict[str, Any]]:
    return [{"name": value.name, "dtype": "f32", "shape": [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]}
            for value in values]


def picture_model(name: str, model_id: str, task: str, kind: str) -> None:
    folder = HERE / name
    model = onnx.load(folder / "model.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    labels = list(ast.literal_eval(metadata["names"]).values())
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    preprocessing = {key: ast.literal_eval(metadata[key]) for key in ("imgsz", "mean", "std") if key in metadata}
    architecture = {"type": kind, "parameters": parameters_of(model), "inputs": signature(model.graph.input), "outputs": signature(model.graph.output),
                    "classes": len(labels), "labels": "labels.txt", "preprocessing": preprocessing}
    write(folder, model_id, task, architecture, "onnx", "model.onnx", "fp32", ["model.onnx", "labels.txt"],
          {"onnx": {"opset": model.opset_import[0].version, "ir": model.ir_version}})


def chat_model() -> None:
    folder = HERE / "chat"
    config = json.loads((folder / "hf" / "config.json").read_text())
    source = sorted(path.relative_to(folder).as_posix() for path in (folder / "hf").iterdir())
    wanted = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
              "max_position_embeddings", "tie_word_embeddings")
    architecture = {"type": "llama", **{key: config[key] for key in wanted}, "source": "hf"}
    write(folder, "pip-chat", "chat", architecture, "gguf", "model.gguf", "f16", ["model.gguf", *source], {"gguf": 3})


def write(folder: Path, model_id: str, task: str, architecture: dict[str, Any], form: str, path: str, method: str, files: list[str],
          versions: dict[str, Any]) -> None:
    """Writes manifest.json; `files` are relative to the folder, the first is what is served."""
    quality = measured(folder.name)
    size = (folder / path).stat().st_size
    manifest = {
        "schema": 1,
        "model_id": model_id,
        "task": task,
        "quantized_at": MADE_AT,
        "pipeline_version": PIPELINE_VERSION,
        "architecture": architecture,
        "formats": [{"type": form, "path": path, "method": method, "size_mb": round(size / 1e6, 3), "compression": 1.0, "quality": quality}],
        "validation": {"passed": quality["value"] >= REQUIRED[folder.name],
                       "checks": [{"name": quality["metric"], "value": quality["value"], "required": REQUIRED[folder.name]}]},
        "runtime_requirements": {"min_memory_mb": max(16, round(4 * size / 1e6))},
        "format_versions": versions,
        "files": [{"path": name, "bytes": (folder / name).stat().st_size, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}
                  for name in files],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    print(f"{folder.name}: {quality['metric']} {quality['value']} on {quality['samples']} samples, {size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="chat, detect or classify; all of them when none is named")
    for name in parser.parse_args().models or REQUIRED:
        if name == "chat":
            chat_model()
        elif name == "detect":
            picture_model("detect", "shapes-detect", "detect", "yolov8")
        elif name == "classify":
            picture_model("classify", "shapes-classify", "classify", "convnet")
        else:
            parser.error(f"no model is called {name}: name chat, detect or classify")


if __name__ == "__main__":
    main()
