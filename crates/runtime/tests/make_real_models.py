#!/usr/bin/env python3
"""Makes tests/data/real_models.json: what the reference implementation computes with two published models.

    pip install -r requirements.txt
    python make_real_models.py FOLDER OUT.json     FOLDER has the GGUF files as `firelight models fetch` keeps them

For each model the weights are dequantised exactly (package `gguf`), loaded into transformers and run in f32 on the CPU:
64 greedy tokens for five prompts (end of text ignored) with the distance between the two best logits at every step, and the mean
loss over the next tokens of one window of 512. A test feeds the recorded ids and compares the best token at each step whose
margin says that rounding cannot have chosen it.

Tokenisation is done here from the GGUF's own lists, so the ids are a reference for that, too.
"""
import argparse
import hashlib
import json
import os
import re
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jinja2
import numpy as np
import torch
import transformers
from gguf import GGUFReader, dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

NEW_TOKENS, WINDOW = 64, 512
TEXT = Path(__file__).parent / "data" / "text.txt"
MODELS = {
    "smollm2-135m-instruct-q4_1": dict(
        file="smollm2-135m-instruct-q4_1.gguf", sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        chats=["Why is the sky blue?", "Write a short poem about the sea.", "What is the capital of France, and what is it known for?",
               "Explain in two sentences how a bicycle stays upright.", "List three fruits and their colours."]),
    "gemma-3-270m-q4_k_m": dict(
        file="gemma-3-270m-q4_k_m.gguf", sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        texts=["Once upon a time, in a village by the sea,", "The capital of France is", "To make a good cup of tea, first",
               "The theory of evolution explains how", "def fibonacci(n):\n    "]),
}


class Gguf:
    """Metadata and dequantised tensors of one file."""

    def __init__(self, path):
        self.reader = GGUFReader(path)
        self.meta = {k: f.contents() for k, f in self.reader.fields.items()}
        self.arch = self.meta["general.architecture"]

    def key(self, name, default=None):
        value = self.meta.get(f"{self.arch}.{name}", default)
        if value is None:
            raise KeyError(f"{self.arch}.{name}")
        return value

    def tensors(self):
        for t in self.reader.tensors:
            # The reader gives bytes or numbers in the stored layout; GGUF writes dimensions in the opposite order.
            yield t.name, torch.from_numpy(np.array(dequantize(t.data, t.tensor_type), dtype=np.float32).reshape(tuple(int(d) for d in t.shape)[::-1]))


# ---------------------------------------------------------------- models
BLOCK = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
LLAMA_BLOCK = {**BLOCK, "ffn_norm": "post_attention_layernorm"}
GEMMA_BLOCK = {**BLOCK, "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_norm": "pre_feedforward_layernorm",
               "post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def hf_name(name, block):
    base = name.removesuffix(".weight")
    if base in TOP:
        return TOP[base] + ".weight"
    _, layer, part = base.split(".")
    return f"model.layers.{layer}.{block[part]}.weight"


def halves_from_pairs(w, heads):
    """llama GGUFs store q and k for rotation of neighbours; transformers rotates halves."""
    return w.reshape(heads, w.shape[0] // heads // 2, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def load(g):
    q_heads, kv_heads = g.key("attention.head_count"), g.key("attention.head_count_kv")
    common = dict(hidden_size=g.key("embedding_length"), intermediate_size=g.key("feed_forward_length"), num_hidden_layers=g.key("block_count"),
                  num_attention_heads=q_heads, num_key_value_heads=kv_heads, max_position_embeddings=g.key("context_length"),
                  rms_norm_eps=g.key("attention.layer_norm_rms_epsilon"), vocab_size=len(g.meta["tokenizer.ggml.tokens"]), tie_word_embeddings=True)
    if g.arch == "llama":
        cls, block = LlamaForCausalLM, LLAMA_BLOCK
        cfg = LlamaConfig(**common, head_dim=common["hidden_size"] // q_heads, rope_parameters=dict(rope_type="default", rope_theta=g.key("rope.freq_base")))
    elif g.arch == "gemma3":
        cls, block = Gemma3ForCausalLM, GEMMA_BLOCK
        # The local base and the pattern of five sliding layers to one are not in the file: they belong to the architecture.
        cfg = Gemma3TextConfig(
            **common, head_dim=g.key("attention.key_length"), query_pre_attn_scalar=g.key("attention.key_length"), sliding_window=g.key("attention.sliding_window"),
            layer_types=["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(common["num_hidden_layers"])],
            rope_parameters=dict(sliding_attention=dict(rope_type="default", rope_theta=10000.0),
                                 full_attention=dict(rope_type="default", rope_theta=g.key("rope.freq_base"))))
    else:
        raise ValueError(f"architecture {g.arch!r} is not read here")
    state = {}
    for name, w in g.tensors():
        if g.arch == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
            w = halves_from_pairs(w, q_heads if "attn_q" in name else kv_heads)
        if g.arch == "gemma3" and name.endswith("norm.weight"):
            w = w - 1  # GGUF stores 1 + w
        state[hf_name(name, block)] = w
    model = cls._from_config(cfg, attn_implementation="eager")
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    assert "lm_head.weight" in state or model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    return model.float().eval()


# ---------------------------------------------------------------- tokenizers
def byte_level(g):
    """GPT-2 BPE; the kind `smollm` splits digits first."""
    assert g.meta["tokenizer.ggml.pre"] == "smollm", g.meta["tokenizer.ggml.pre"]
    tokens = g.meta["tokenizer.ggml.tokens"]
    tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[tuple(m.split(" ")) for m in g.meta["tokenizer.ggml.merges"]]))
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, g.meta["tokenizer.ggml.token_type"]) if kind == 3]
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    assert tok.get_vocab_size() == len(tokens)
    bos = [g.meta["tokenizer.ggml.bos_token_id"]] if g.meta.get("tokenizer.ggml.add_bos_token") else []
    return lambda text: bos + tok.encode(text, add_special_tokens=False).ids, lambda ids: tok.decode(ids, skip_special_tokens=True)


def sentencepiece(g):
    """SentencePiece BPE: user-defined tokens are taken whole, the longest first; elsewhere the neighbouring pair whose union has the
    best score is merged first, the leftmost of equals."""
    tokens, scores = g.meta["tokenizer.ggml.tokens"], g.meta["tokenizer.ggml.scores"]
    kinds = g.meta["tokenizer.ggml.token_type"]
    own = {t.replace(" ", "\u2581"): i for i, (t, kind) in enumerate(zip(tokens, kinds)) if kind == 4}
    defined = re.compile("|".join(re.escape(t) for t in sorted(own, key=len, reverse=True)) or "(?!)")
    ids = {t: i for i, t in enumerate(tokens)}
    bos = [g.meta["tokenizer.ggml.bos_token_id"]] if g.meta.get("tokenizer.ggml.add_bos_token", True) else []
    prefix = "\u2581" if g.meta.get("tokenizer.ggml.add_space_prefix", True) else ""

    def encode(text):
        text, out, at = prefix + text.replace(" ", "\u2581"), [], 0
        for match in defined.finditer(text):
            out += merge(text[at:match.start()]) + [own[match[0]]]
            at = match.end()
        return bos + out + merge(text[at:])

    def merge(text):
        parts = list(text)
        while True:
            pairs = [(-scores[ids[a + b]], i) for i, (a, b) in enumerate(zip(parts, parts[1:])) if a + b in ids]
            if not pairs:
                break
            _, i = min(pairs)
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        out = []
        for p in parts:
            out += [ids[p]] if p in ids else [ids[f"<0x{b:02X}>"] for b in p.encode()]
        return out

    def decode(out):
        data = b"".join(bytes([int(t[3:5], 16)]) if (t := tokens[i]).startswith("<0x") and len(t) == 6 else t.replace("\u2581", " ").encode() for i in out)
        return data.decode("utf-8", "replace")

    return encode, decode


def render(g, messages):
    env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    tokens = g.meta["tokenizer.ggml.tokens"]
    special = {f"{n}_token": tokens[i] for n in ("bos", "eos") if (i := g.meta.get(f"tokenizer.ggml.{n}_token_id")) is not None}
    return env.from_string(g.meta["tokenizer.chat_template"]).render(messages=messages, add_generation_prompt=True, **special)


# ---------------------------------------------------------------- runs
@torch.no_grad()
def greedy(model, prompt_ids):
    ids, margins, cache = torch.tensor([prompt_ids]), [], None
    out_ids = []
    for _ in range(NEW_TOKENS):
        out = model(input_ids=ids, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        top = out.logits[0, -1].topk(2)
        out_ids.append(int(top.indices[0]))
        margins.append(round(float(top.values[0] - top.values[1]), 4))
        ids = top.indices[:1].reshape(1, 1)
    return out_ids, margins


@torch.no_grad()
def mean_loss(model, ids):
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1].double()
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])))


def reference(path, spec):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == spec["sha256"], f"{path}: sha256 is {digest}"
    g = Gguf(path)
    encode, decode = byte_level(g) if g.meta["tokenizer.ggml.model"] == "gpt2" else sentencepiece(g)
    model = load(g)
    eos = int(g.meta["tokenizer.ggml.eos_token_id"])
    cases = []
    for text in spec.get("chats", []):
        messages = [{"role": "user", "content": text}]
        cases.append({"messages": messages, "prompt": render(g, messages)})
    cases += [{"prompt": text} for text in spec.get("texts", [])]
    for case in cases:
        case["prompt_ids"] = encode(case["prompt"])
        case["ids"], case["margins"] = greedy(model, case["prompt_ids"])
        end = case["ids"].index(eos) if eos in case["ids"] else len(case["ids"])
        case["ends_after"], case["text"] = end, decode(case["ids"][:end])
        print(f"  {case['prompt'][-60:]!r} -> {case['text'][:90]!r}; smallest margin {min(case['margins'])}", flush=True)
    window = encode(TEXT.read_text(encoding="utf-8"))[:WINDOW]
    assert len(window) == WINDOW
    nll = mean_loss(model, window)
    print(f"  mean loss over {WINDOW - 1} tokens: {nll:.6f}", flush=True)
    return {"file": spec["file"], "sha256": digest, "eos_id": eos, "cases": cases, "window": {"ids": window, "nll": nll}}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("folder", type=Path)
    ap.add_argument("out", type=Path)
    args = ap.parse_args()
    models_ = {}
    for name, spec in MODELS.items():
        print(name, flush=True)
        models_[name] = reference(args.folder / spec["file"], spec)
    doc = {"reference": f"transformers {transformers.__version__}, torch {torch.__version__}, dequantised weights in f32, eager attention",
           "greedy": f"argmax, end of text ignored, {NEW_TOKENS} steps; margins are best minus second-best logit", "models": models_}
    # One number list per line: readable in a diff, and small.
    text = json.dumps(doc, indent=1, ensure_ascii=False)
    args.out.write_text(compact(text) + "\n")


def compact(text):
    out, flat = [], False
    for line in text.split("\n"):
        s = line.strip()
        if flat:
            out[-1] += s if s.startswith("]") else (" " if out[-1].endswith(",") else "") + s
            flat = not s.startswith("]")
        else:
            out.append(line)
            flat = line.endswith("[") and any(k in line for k in ('"prompt_ids"', '"ids"', '"margins"'))
    return "\n".join(out)


if __name__ == "__main__":
    sys.exit(main())
