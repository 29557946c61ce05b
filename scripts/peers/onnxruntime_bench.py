"""ONNX Runtime's tokens a second: `onnxruntime_bench.py FOLDER PROMPT GENERATE THREADS`, a folder of its own model builder.

A warm-up, then the best of three; one JSON line.
"""

import json
import sys
import time

import onnxruntime_genai as og

folder, prompt, generate, threads = sys.argv[1], *map(int, sys.argv[2:])
config = og.Config(folder)
options = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
model = og.Model(config)
tokens = [100 + i * 7 % 20_000 for i in range(prompt)]
prefill = decode = 0.0
for turn in range(4):
    params = og.GeneratorParams(model)
    # No end before as many tokens as were asked for.
    params.set_search_options(max_length=prompt + generate + 1, min_length=prompt + generate + 1, do_sample=False)
    generator = og.Generator(model, params)
    start = time.perf_counter()
    generator.append_tokens(tokens)
    generator.generate_next_token()
    first = time.perf_counter() - start
    for _ in range(generate):
        generator.generate_next_token()
    rest = time.perf_counter() - start - first
    assert len(generator.get_sequence(0)) == prompt + generate + 1, "an answer that ended early"
    if turn:
        prefill, decode = max(prefill, prompt / first), max(decode, generate / rest)
print(json.dumps({"prefill_tps": prefill, "decode_tps": decode}))
