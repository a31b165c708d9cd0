#!/usr/bin/env python3
"""The peer of `cargo xtask bench` for fewer bits: llama.cpp's own quantizer, called through llama-cpp-python.

    python tests/peers/quantize.py IN.gguf OUT.gguf Q4_K_M --threads 2
"""
import argparse, ctypes, sys

import llama_cpp as L

parser = argparse.ArgumentParser()
parser.add_argument("source")
parser.add_argument("output")
parser.add_argument("precision")
parser.add_argument("--threads", type=int, default=1)
args = parser.parse_args()

quiet = L.llama_log_callback(lambda *_: None)  # kept: the library calls it
L.llama_log_set(quiet, None)
wanted = L.llama_model_quantize_default_params()
wanted.nthread = args.threads
wanted.ftype = getattr(L, f"LLAMA_FTYPE_MOSTLY_{args.precision}")
sys.exit(L.llama_model_quantize(args.source.encode(), args.output.encode(), ctypes.byref(wanted)))
