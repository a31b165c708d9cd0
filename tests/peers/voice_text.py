"""Writes wasm-stages/voice-text/tests/golden.json: the ids that transformers' VitsTokenizer and piper's own function make of texts.

    pip install -r tests/peers/voice-requirements.txt
    python tests/peers/voice_text.py
"""

import json
import pathlib
import tempfile
import unicodedata

from piper.phoneme_ids import phonemes_to_ids
from transformers import VitsTokenizer

OUT = pathlib.Path(__file__).parents[2] / "wasm-stages/voice-text/tests/golden.json"
VOICES = pathlib.Path(__file__).parents[1] / "fixtures" / "voice"
# None begins or ends with "k": MMS gives it the id 0, transformers takes it for its padding, and leaves out a blank beside it there that
# the models were trained with.
TEXTS = ["hello world", "Hello, World!", "it's a well-known café", " ÀÉ ŵ ", "ok kit", "a  b", "ţară ț", "ÄÖÜ ßa é", "one; two: three?", "naïve 'quoted' text."]
SETTINGS = {
    "usual": {},
    "no blanks": {"add_blank": False},
    "romanian": {"language": "ron"},
}


def piper(text):
    config = json.loads((VOICES / "piper.onnx.json").read_text(encoding="utf-8"))
    # Its letters are small ones.
    return phonemes_to_ids(list(unicodedata.normalize("NFD", text.strip()).lower()), config["phoneme_id_map"])


def transformers(settings):
    folder = VOICES / "mms"
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")) | settings
    with tempfile.TemporaryDirectory() as copy:
        copy = pathlib.Path(copy)
        vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8")) | {"ţ": 40, "é": 41}
        (copy / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (copy / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        tokenizer = VitsTokenizer.from_pretrained(copy)
        return [tokenizer(text)["input_ids"] for text in TEXTS]


OUT.parent.mkdir(exist_ok=True)
golden = {"texts": TEXTS, "piper": [piper(text) for text in TEXTS],
          "transformers": [{"settings": settings, "ids": transformers(settings)} for settings in SETTINGS.values()]}
OUT.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
