"""Makes tests/data from the reference implementations. Run it from this folder, with

    pip install torch==2.15.0 torchvision==0.29.2 transformers==5.23.0 pillow==12.2.0 numpy

Pictures are drawn by `picture` below, which tests/common/mod.rs draws too; results are kept as CRC-32 of the bytes (an
equal CRC at 8 bits is bit-exactness, which is what the crate claims), with a few values beside it for whoever debugs.
"""
import io
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import InterpolationMode as Mode
from torchvision.transforms.v2 import functional as F

DATA = Path(__file__).parent / "data"


def picture(w, h, seed):
    """[h, w, 3] uint8: 8×8 tiles of noise, gradient, black-and-white noise and flat colour."""
    y, x, c = np.meshgrid(*(np.arange(n, dtype=np.uint32) for n in (h, w, 3)), indexing="ij")
    with np.errstate(over="ignore"):
        v = x * np.uint32(73856093) ^ y * np.uint32(19349663) ^ (c * np.uint32(83492791) + np.uint32(seed * 2654435761 % 2**32))
        for shift, mul in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
            v = (v ^ v >> np.uint32(shift)) * np.uint32(mul)
        v ^= v >> np.uint32(15)
        kind = (x // 8 + y // 8) & 3
        tiles = (v & 255, (x * 5 + y * 3 + c * 40) & 255, (v & 1) * 255, (c * 100 + 30) & 255)
    return np.select([kind == k for k in range(4)], tiles).astype(np.uint8)


def crc(a):
    return f"{zlib.crc32(np.ascontiguousarray(a).tobytes()):08x}"


# ---------------------------------------------------------------- resize
PIL_FILTER = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
TORCH_FILTER = {"nearest": Mode.NEAREST, "bilinear": Mode.BILINEAR, "bicubic": Mode.BICUBIC, "lanczos": Mode.LANCZOS}


def resized(reference, name, im, w, h):
    if reference == "pillow":
        return np.asarray(Image.fromarray(im).resize((w, h), PIL_FILTER[name]))
    t = F.resize(torch.from_numpy(im).permute(2, 0, 1).contiguous(), [h, w], TORCH_FILTER[name], antialias=True)
    return t.permute(1, 2, 0).numpy()


def resize_cases():
    odd = [1, 2, 3, 5, 7, 11, 13, 17, 31, 37, 48, 53, 61, 64, 71, 97, 101, 127, 131, 224]
    rng = np.random.default_rng(20)
    cases = [(1, 1, 1, 1), (1, 1, 7, 5), (1, 5000, 3, 11), (4000, 3, 64, 64), (70, 100, 48, 48), (120, 90, 48, 48), (5000, 1, 1, 1),
             (97, 101, 97, 50), (97, 101, 50, 101), (2, 2, 131, 127), (640, 427, 224, 224), (427, 640, 31, 500), (3, 4000, 4000, 3), (3, 301, 40, 300), (3, 300, 40, 30), (3, 301, 40, 400)]
    while len(cases) < 60:
        cases.append(tuple(int(v) for v in rng.choice(odd, 4)))
    lines = ["# reference filter in_w in_h out_w out_h seed crc32(out [h,w,3])"]
    for i, (w, h, ow, oh) in enumerate(cases):
        im = picture(w, h, i)
        for reference, filters in (("torchvision", TORCH_FILTER), ("pillow", PIL_FILTER)):
            for name in filters:
                lines.append(f"{reference} {name} {w} {h} {ow} {oh} {i} {crc(resized(reference, name, im, ow, oh))}")
    (DATA / "resize.txt").write_text("\n".join(lines) + "\n")
    return len(lines) - 1


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    for part in sys.argv[1:] or ["resize"]:
        print(part, globals()[part + "_cases"]())
