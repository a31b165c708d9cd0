#!/usr/bin/env python3
"""The peer of the stages `tokenize` and `detokenize`: the package `tokenizers`.

    tokens.py golden [ASSETS]     writes wasm-stages/tokenize/tests/{golden,wordpiece,unigram}.json
    tokens.py time FILE TEXT      milliseconds to read a tokenizer.json, and to encode the lines of a text, as JSON

Needs `pip install --no-deps tokenizers==0.23.3`.
"""
import json, pathlib, sys, time

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = pathlib.Path(__file__).resolve().parents[2] / "wasm-stages/tokenize/tests"
ASSETS = {
    "clip": "tokenizers/clip", "phi-3": "tokenizers/phi-3", "roberta-base": "tokenizers/roberta-base",
    "whisper-tiny": "whisper/whisper-tiny",
}
SOURCES = {"ggml-vocab": "tokenizers/ggml-vocab/ggml-vocab-gpt-2.gguf.inp", "wiki": "text/wiki.test.raw"}
TEXTS = [
    "", " ", "A red circle above a blue square.", "two  spaces,\tand a tab\n", "unaffable", "naïve café — déjà vu",
    "Ünïcödé ß ﬁ Ⅻ", "1234567890", "日本語 テスト", "🙂🙃 e\u0301", "don't can't I'll", "[CLS] marks [SEP]", "a" * 130,
]
CORPUS = ["a red circle above a blue square", "the green triangle is left of two yellow stars", "naive cafe deja vu",
          "unaffable people cannot and will not do that", "12 34 567 numbers and signs , . ! ? ' \" ( )"] * 3


def text_of(source, path):
    """As the tests of the stage read it."""
    text = path.read_text(encoding="utf-8")
    return text.split("\n__ggml_vocab_test__\n") if source == "ggml-vocab" else text.split("\n")[:400]


def fnv(items):
    """FNV-1a of 64 bits over the bytes of numbers (32 bits, little endian) or of a text."""
    data = items.encode() if isinstance(items, str) else b"".join(i.to_bytes(4, "little") for i in items)
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def hashed(tokenizer, texts):
    rows = []
    for text in texts:
        plain, special = (tokenizer.encode(text, add_special_tokens=s).ids for s in (False, True))
        rows.append([fnv(plain), fnv(special), fnv(tokenizer.decode(plain)),
                     fnv(tokenizer.decode(special, skip_special_tokens=False))])
    # Long lists as one line of each column.
    return rows if len(rows) < 100 else [[fnv("".join(column)) for column in zip(*rows)]]


def whole(tokenizer):
    def entry(text):
        encoded = tokenizer.encode(text)
        pair = tokenizer.encode(text, "a blue star")
        return {"text": text, "ids": encoded.ids, "decoded": tokenizer.decode(encoded.ids),
                "with_special": tokenizer.decode(encoded.ids, skip_special_tokens=False),
                "pair": pair.ids, "types": pair.type_ids}

    entries = [entry(text) for text in TEXTS]
    tokenizer.enable_truncation(6)
    for entry in entries:
        entry["at_most_6"] = tokenizer.encode(entry["text"]).ids
    tokenizer.no_truncation()
    return entries


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=160, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))])
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=160, special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
                                        unk_token="<unk>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("<s>", "</s>")])
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def golden(assets):
    OUT.mkdir(exist_ok=True)
    entries = {}
    for name, make in (("wordpiece", wordpiece), ("unigram", unigram)):
        file = OUT / f"{name}.json"
        if not file.exists():  # training is not the same twice
            make().save(str(file), pretty=False)
        entries[name] = whole(Tokenizer.from_file(str(file)))
    hashes = {}
    for name, folder in ASSETS.items() if assets else ():
        tokenizer = Tokenizer.from_file(str(assets / folder / "tokenizer.json"))
        hashes[name] = {s: hashed(tokenizer, text_of(s, assets / path)) for s, path in SOURCES.items()}
    rows = [*entries.items()] + [(f"{name}/{source}", rows) for name, of in hashes.items() for source, rows in of.items()]
    lines = lambda part: ",\n".join(json.dumps(row, ensure_ascii=False) for row in part)
    text = ",\n".join(f"{json.dumps(name)}: [\n{lines(part)}\n]" for name, part in rows)
    (OUT / "golden.json").write_text("{\n" + text + "\n}\n")


def timed(file, text):
    def best(of):
        times = []
        for _ in range(10):
            begun = time.perf_counter()
            of()
            times.append(time.perf_counter() - begun)
        return min(times) * 1e3

    tokenizer = Tokenizer.from_file(file)
    lines = pathlib.Path(text).read_text().split("\n")[:400]
    print(json.dumps({"read_ms": best(lambda: Tokenizer.from_file(file)),
                      "encode_ms": best(lambda: [tokenizer.encode(line) for line in lines])}))


if sys.argv[1] == "time":
    timed(*sys.argv[2:4])
else:
    golden(pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None)
