"""Makes tests/goldens with the `gguf` package's NumPy reference: pip install numpy gguf==0.19.0

quant.safetensors   per format NAME: NAME.blocks (random blocks) and NAME.values (dequantised); for the formats which the
                    reference quantises also NAME.input and NAME.quantized
all-types.gguf      every metadata type and several tensor types, written by the reference writer
split-*.gguf        a split set of two parts
"""

import json
import struct
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGUFValueType as V
from gguf import GGUFWriter, quants
from gguf.constants import GGML_QUANT_SIZES

OUT = Path(__file__).parent / "goldens"
rng = np.random.default_rng(2026)

# Where the f16 scales lie in a block: random bytes there would give infinities.
SCALES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}


def write_safetensors(path, tensors):
    names = {np.dtype("float32"): "F32", np.dtype("uint8"): "U8"}
    header, at = {}, 0
    for name, a in tensors.items():
        header[name] = {"dtype": names[a.dtype], "shape": list(a.shape), "data_offsets": [at, at + a.nbytes]}
        at += a.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(a.tobytes() for a in tensors.values()))


def quant_goldens():
    tensors = {}
    for name, places in SCALES.items():
        kind = T[name]
        block, size = GGML_QUANT_SIZES[kind]
        rows = 3 if block == 256 else 6
        blocks = rng.integers(0, 256, (rows, size), dtype=np.uint8)
        for p in places:
            d = rng.normal(0, 0.05, rows).astype(np.float16)
            d[0] = 0
            blocks[:, p : p + 2] = d.view(np.uint8).reshape(rows, 2)
        tensors[f"{name.lower()}.blocks"] = blocks
        tensors[f"{name.lower()}.values"] = quants.dequantize(blocks, kind).astype(np.float32)
        if block == 32:
            x = rng.normal(0, 1, (8, 32)).astype(np.float32)
            x[0] = 0
            x[1] = 0.75
            x[2] = -0.75
            x[3] = np.abs(x[3])
            x[4] *= 1e-3
            x[5] *= 300
            x[6] = np.round(x[6])
            tensors[f"{name.lower()}.input"] = x
            tensors[f"{name.lower()}.quantized"] = quants.quantize(x, kind)
    write_safetensors(OUT / "quant.safetensors", tensors)


def gguf_golden():
    w = GGUFWriter(OUT / "all-types.gguf", "llama")
    w.add_custom_alignment(64)
    for kind, value in {
        V.UINT8: 200, V.INT8: -100, V.UINT16: 60000, V.INT16: -30000, V.UINT32: 4000000000, V.INT32: -2000000000,
        V.UINT64: 2**63 + 5, V.INT64: -(2**62), V.FLOAT32: 0.5, V.FLOAT64: 1e300, V.BOOL: True, V.STRING: "héllo\n",
    }.items():
        w.add_key_value(f"one.{kind.name.lower()}", value, kind)
        many = [value] if kind is V.STRING else [value, type(value)(0)]
        w.add_key_value(f"many.{kind.name.lower()}", many, V.ARRAY, kind)
    w.add_array("tokens", ["<s>", "", "▁the", "\U0001f600"])
    w.add_tensor("matrix", np.arange(6, dtype=np.float32).reshape(2, 3))
    w.add_tensor("half", np.array([0.5, -2, 65504], dtype=np.float16))
    w.add_tensor("bytes", np.array([-128, 0, 127], dtype=np.int8))
    w.add_tensor("ints", np.array([[-1], [7]], dtype=np.int32))
    w.add_tensor("longs", np.array([-(2**40), 3], dtype=np.int64))
    w.add_tensor("doubles", np.array([1.5], dtype=np.float64))
    x = np.linspace(-4, 4, 128, dtype=np.float32).reshape(2, 64)
    w.add_tensor("quantised", quants.quantize(x, T.Q8_0), raw_dtype=T.Q8_0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def split_golden():
    w = GGUFWriter(OUT / "split.gguf", "llama", split_max_tensors=2)
    w.add_name("split set")
    for i in range(3):
        w.add_tensor(f"t{i}", np.full((i + 1, 4), i, dtype=np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


OUT.mkdir(exist_ok=True)
quant_goldens()
gguf_golden()
split_golden()
