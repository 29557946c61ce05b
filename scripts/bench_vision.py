#!/usr/bin/env python3
"""From a 12-megapixel JPEG to model input: Firelight beside Hugging Face's processors and fast_image_resize, in turn, in one run.

    pip install torch==2.15.0 torchvision==0.29.2 transformers==5.23.0 pillow==12.2.0 numpy
    python scripts/bench_vision.py [--rounds N] [--threads N] [FILE.jpg]

Without a file a picture of 4000×3000 is drawn: smooth colours with a photograph's noise, JPEG quality 90, 4:2:0. Every round
runs all sides once, each already warmed up; what is printed are medians of times and of ratios, and the peak of memory of one run in a
fresh process as a multiple of the decoded picture. `--threads 1` binds everything to one processor core.
"""
import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("file", nargs="?")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--threads", type=int, default=0, help="processor cores to use (all)")
args = parser.parse_args()
if args.threads:
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: args.threads]))

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessor, Qwen2VLImageProcessor, ViTImageProcessor
from transformers.utils import logging

logging.set_verbosity_error()
torch.set_num_threads(len(os.sched_getaffinity(0)))
path = args.file
if not path:
    path = str(Path(tempfile.gettempdir()) / "firelight-12mp.jpg")
    rng = np.random.default_rng(1)
    small = Image.fromarray(rng.integers(0, 256, (150, 200, 3), dtype=np.uint8)).resize((4000, 3000), 3)
    noise = rng.normal(0, 6, (3000, 4000, 1)).round()
    Image.fromarray((np.asarray(small) + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)
bench = ["cargo", "bench", "-q", "-p", "firelight-vision", "--bench", "speed"]
subprocess.run([*bench, "--no-run"], cwd=ROOT, check=True)
ours = [*bench, "--", os.path.abspath(path)]
data = Path(path).read_bytes()
processors = {"clip": CLIPImageProcessor(), "vit": ViTImageProcessor(), "qwen2_vl": Qwen2VLImageProcessor()}


def theirs(processor):
    """As transformers' load_image and processor do with a file."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return processor(images=[image], return_tensors="pt")


for p in processors.values():
    theirs(p)
rounds = []
for _ in range(args.rounds):
    mine = json.loads(subprocess.run(ours, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    for name, p in processors.items():
        times = []
        for _ in range(5):
            start = time.perf_counter()
            theirs(p)
            times.append((time.perf_counter() - start) * 1e3)
        mine[name]["hugging face"] = statistics.median(times)
    rounds.append(mine)

print(f"{os.path.getsize(path) / 1e6:.1f} MB, {rounds[0]['size'][0]}×{rounds[0]['size'][1]}, {len(os.sched_getaffinity(0))} cores, {args.rounds} rounds")
median = lambda f: statistics.median(f(r) for r in rounds)
print(f"decoding alone {median(lambda r: r['decode']):.1f} ms")
for name in processors:
    print(f"{name:9} file to tensor: ours {median(lambda r: r[name]['whole']):7.1f} ms (of it after decoding {median(lambda r: r[name]['process']):5.1f}), "
          f"Hugging Face {median(lambda r: r[name]['hugging face']):7.1f} ms, {median(lambda r: r[name]['hugging face'] / r[name]['whole']):.2f} times ours")
for name in (k for k in rounds[0] if k.startswith("resize")):
    print(f"{name:28} ours {median(lambda r: r[name]['ours']):6.2f} ms, fast_image_resize {median(lambda r: r[name]['fast_image_resize']):6.2f} ms, "
          f"{median(lambda r: r[name]['fast_image_resize'] / r[name]['ours']):.2f} times ours; {rounds[0][name]['samples that differ']} samples differ; ours as Pillow {median(lambda r: r[name]['ours as Pillow']):6.2f} ms")
decoded = rounds[0]["size"][0] * rounds[0]["size"][1] * 3
for name in processors:
    m = json.loads(subprocess.run(ours + [name], cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    print(f"{name:9} peak of memory {(m['peak'] - m['before']) / decoded:.2f} × the decoded picture (the tensor is {m['values'] * 4 / decoded:.2f} of that)")
