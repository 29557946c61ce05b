#!/usr/bin/env python3
"""Makes tests/data/lora: two LoRA adapters over the `llama` fixture as PEFT saves them, and what the model computes with them.

    pip install -r requirements.txt peft==0.21.2
    python make_lora.py data [--seed N]          the repository has seed 7

`a` is a plain adapter of some projections; `b` is of all linear layers, with rsLoRA and ranks and alphas of its own for some of
them. Both matrices of every layer are random and not zero, so that every one has an effect. golden.safetensors holds, for the
prompt of the fixture's `text` case in f32: the last 24 rows of logits and 16 greedy tokens of the base, of `a`, of `b`, and logits of both together
(`ab`: 1.0 a + 0.5 b).
"""
import argparse
import json
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
NEW_TOKENS = 16
ROWS = 24
LAYER = "model.layers.1."
ADAPTERS = {
    "a": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"]),
    "b": dict(r=6, lora_alpha=9, use_rslora=True, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
              rank_pattern={LAYER + "mlp.up_proj": 3, "k_proj": 2}, alpha_pattern={"o_proj": 5}),
}


def base(folder):
    return AutoModelForCausalLM.from_pretrained(folder / "llama", dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def draw(model, name, seed):
    """Random matrices whose product is about a tenth of the layer's own."""
    g = torch.Generator().manual_seed(seed * 1000 + ord(name))
    for path, p in model.named_parameters():
        if ".lora_A." in path:
            p.copy_(torch.randn(p.shape, generator=g) / p.shape[1] ** 0.5)
        elif ".lora_B." in path:
            p.copy_(torch.randn(p.shape, generator=g) * 0.06)


@torch.no_grad()
def run(model, ids):
    logits = model(input_ids=ids).logits[0, -ROWS:]
    seq, margin = ids, 1.0
    for _ in range(NEW_TOKENS):
        step = model(input_ids=seq).logits[0, -1]
        top = step.topk(2).values
        margin = min(margin, float(top[0] - top[1]))
        seq = torch.cat([seq, step.argmax()[None, None]], 1)
    return logits, seq[0, ids.shape[1]:], margin


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("data", type=Path, help="the folder that has llama/")
    ap.add_argument("--seed", type=int, default=7)
    args = ap.parse_args()
    out = args.data / "lora"
    shutil.rmtree(out, ignore_errors=True)
    ids = load_file(args.data / "llama" / "golden.safetensors")["text.input_ids"][None]
    golden = {"input_ids": ids[0]}
    golden["base.logits"], golden["base.greedy_ids"], _ = run(base(args.data), ids)
    deltas = {}
    for name, config in ADAPTERS.items():
        model = get_peft_model(base(args.data), LoraConfig(task_type="CAUSAL_LM", **config)).eval()
        for k in range(40):
            draw(model, name, args.seed + 100 * k)
            golden[f"{name}.logits"], golden[f"{name}.greedy_ids"], margin = run(model, ids)
            if margin > 0.02:
                break
        assert margin > 0.02, "every draw is near a tie"
        model.save_pretrained(out / name)
        file = out / name / "adapter_config.json"
        saved = json.loads(file.read_text()) | {"base_model_name_or_path": "llama"}
        saved["target_modules"].sort()  # a set in PEFT
        file.write_text(json.dumps(saved, indent=2) + "\n")
        (out / name / "README.md").unlink(missing_ok=True)
        deltas[name] = {path: m.get_delta_weight("default") for path, m in model.base_model.model.named_modules() if hasattr(m, "get_delta_weight")}
    both = base(args.data)
    with torch.no_grad():
        for name, scale in (("a", 1.0), ("b", 0.5)):
            for path, delta in deltas[name].items():
                both.get_submodule(path).weight += scale * delta
    golden["ab.logits"], _, _ = run(both, ids)
    for x, y in (("base", "a"), ("base", "b"), ("a", "b")):
        assert not torch.equal(golden[f"{x}.greedy_ids"], golden[f"{y}.greedy_ids"]), f"{x} and {y} say the same: draw again"
    save_file({k: v.contiguous().clone() for k, v in golden.items()}, out / "golden.safetensors")
    said = {"seed": args.seed, **{k: {"rank": json.loads((out / k / "adapter_config.json").read_text())["r"]} for k in ADAPTERS}}
    print(said, {k: round(float((golden[f"{k}.logits"] - golden["base.logits"]).abs().max()), 2) for k in ("a", "b", "ab")})


if __name__ == "__main__":
    sys.exit(main())
