#!/usr/bin/env python3
"""Makes the multimodal families of tests/data: tiny checkpoints with random weights, and what transformers computes from them.

    pip install -r requirements.txt
    make_media_fixtures.py OUT FAMILY [--seed N] [--dtype auto|bf16|f32]      (FAMILY: a name from --list, or `all`; the repository has seed 7)

Per family OUT/FAMILY/ gets the HF checkpoint layout (config.json, model.safetensors, tokenizer.json, processor files,
chat_template.jinja), the raw inputs (input*.png / input*.wav), and
  golden.safetensors   tensors named CASE.NAME
  golden.json          prompts, tokenised strings, seeds, versions, numeric statistics
Use Pillow < 13 for the `*_pil_*` tensors: 13.0 changed the resize pass order.
Weights are rounded to the storage dtype first and the reference then runs in float32 with eager attention, so a
reader that upcasts the stored weights to f32 sees bit-identical parameters.
"""
# ---------------------------------------------------------------- imports
import argparse, copy, hashlib, json, math, os, re, shutil, sys, wave
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
import numpy as np
import PIL
import tokenizers
import torch
import torchvision
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging as hf_logging

hf_logging.set_verbosity_error()
hf_logging.disable_progress_bar()
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True, warn_only=True)


# ---------------------------------------------------------------- tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "The quick brown fox jumps over the lazy dog and runs away from the river.",
    "A local model answers questions about images, sounds and text on your own machine.",
    "What is in this picture? Describe the image in detail, please.",
    "Transcribe the following audio: hello world, this is a short test of the speech system.",
    "Numbers 0 1 2 3 4 5 6 7 8 9 10 100 2024 3.14 and punctuation: , . ; : ! ? - ( ) [ ] { }",
    "user system assistant model User Assistant tool message content role",
    "It's easy, isn't it? We'll see; they've said I'm right and you're wrong. Let's go!",
    "def main(): return [x for x in range(10)]\n\tprint('done')\n",
    "Le café est très bon. Straße, naïve, señor, 東京, Москва, \u4f60\u597d.",
    "the and of to in is that for it on with as are this was be at by from or an have not",
] * 4

QWEN_RE = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN35_RE = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_RE = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CLIP_RE = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def _special(tok, specials):
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])


def byte_level(style, specials, bos=None, vocab=384):
    """GPT-2 family byte-level BPE: style in gpt2|qwen2|qwen3_5|llama3|smollm|whisper."""
    tok = Tokenizer(models.BPE(ignore_merges=(style == "llama3")))
    bl = lambda use_regex: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    split = lambda rx: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(rx), "isolated"), bl(False)])
    if style in ("qwen2", "qwen3_5"):
        tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = {
        "gpt2": lambda: bl(True), "whisper": lambda: bl(True),
        "qwen2": lambda: split(QWEN_RE), "qwen3_5": lambda: split(QWEN35_RE), "llama3": lambda: split(LLAMA3_RE),
        "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bl(True)]),
    }[style]()
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=vocab, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    _special(tok, specials)
    post = [processors.ByteLevel(trim_offsets=False)]
    if bos:
        post.append(processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tok.token_to_id(bos))]))
    tok.post_processor = processors.Sequence(post) if len(post) > 1 else post[0]
    return tok


def sentencepiece_bpe(style, specials, bos=None, merges_n=150):
    """Sentencepiece-style BPE with byte fallback: style in gemma|llama2. `specials` take the lowest ids."""
    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.Replace(" ", "\u2581")
    raw.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    raw.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=10_000, limit_alphabet=90, min_frequency=8, show_progress=False))
    spec = json.loads(raw.to_str())["model"]
    merges = [tuple(m) if not isinstance(m, str) else tuple(m.split(" ")) for m in spec["merges"]][:merges_n]
    chars = sorted(t for t in spec["vocab"] if len(t) == 1)
    vocab = {}
    for t in [*specials, *(f"<0x{b:02X}>" for b in range(256)), *(a + b for a, b in merges), *chars]:
        vocab.setdefault(t, len(vocab))
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if style == "gemma":
        tok.normalizer = normalizers.Replace(" ", "\u2581")
        tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        tok.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    else:
        tok.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        tok.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    _special(tok, specials)
    if bos:
        tok.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tok.token_to_id(bos))])
    return tok


def _pieces(words, lo, hi, keep, mark=""):
    """Frequent substrings, ranked by count x length with alphabetical ties. (The library's WordPiece and Unigram
    trainers are not reproducible from run to run, so those two vocabularies are chosen here.)"""
    count = {}
    for w in words:
        for i in range(len(w)):
            for n in range(lo, hi + 1):
                if i + n <= len(w):
                    p = (mark if i else "") + w[i:i + n]
                    count[p] = count.get(p, 0) + 1
    return sorted(((p, c) for p, c in count.items() if c >= 4), key=lambda x: (-x[1] * len(x[0].replace(mark, "") if mark else x[0]), x[0]))[:keep]


def clip(merges_n=150):
    """CLIP: lower-cased byte-level BPE with `</w>` word ends. Vocabulary order as in the real one:
    256 bytes, the same 256 with `</w>`, the merges, then <|startoftext|>, <|endoftext|>."""
    bos, eos = "<|startoftext|>", "<|endoftext|>"
    shell = lambda m: Tokenizer(m)
    norm = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    pre = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CLIP_RE), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    raw = shell(models.BPE(end_of_word_suffix="</w>"))
    raw.normalizer, raw.pre_tokenizer = norm, pre
    raw.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=10_000, min_frequency=8, end_of_word_suffix="</w>", show_progress=False))
    merges = [tuple(m) if not isinstance(m, str) else tuple(m.split(" ")) for m in json.loads(raw.to_str())["model"]["merges"]][:merges_n]
    by = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {}
    for t in [*by, *(c + "</w>" for c in by), *(a + b for a, b in merges), bos, eos]:
        vocab.setdefault(t, len(vocab))
    tok = shell(models.BPE(vocab=vocab, merges=merges, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=eos))
    tok.normalizer, tok.pre_tokenizer, tok.decoder = norm, pre, decoders.ByteLevel()
    _special(tok, [bos, eos])
    tok.post_processor = processors.RobertaProcessing((eos, vocab[eos]), (bos, vocab[bos]), trim_offsets=False, add_prefix_space=False)
    return tok


def t5_unigram(keep=220):
    """SigLIP text side: sentencepiece unigram (piece scores are log relative frequencies), </s> appended."""
    words = ["\u2581" + w for line in CORPUS for w in line.lower().split()]
    total = sum(map(len, words))
    ranked = _pieces(words, 2, 6, keep)
    chars = sorted({c for w in words for c in w})
    scored = [(c, math.log(sum(w.count(c) for w in words) / total) - 2.0) for c in chars] + [(p, math.log(c / total)) for p, c in ranked]
    tok = Tokenizer(models.Unigram([("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((p, round(v, 6)) for p, v in scored)], unk_id=2))
    tok.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.decoder = decoders.Metaspace()
    _special(tok, ["<pad>", "</s>", "<unk>"])
    tok.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", tok.token_to_id("</s>"))])
    return tok


FAMILIES = {}          # name -> (function, default storage dtype)
N_NEW = 16             # greedy tokens recorded per case


def family(name, dtype="bf16"):
    def deco(fn):
        FAMILIES[name] = (fn, dtype)
        return fn
    return deco


# ---------------------------------------------------------------- deterministic raw inputs
def synth_image(w=100, h=75, phase=0):
    """A gradient with a disc, a bar and a chequer: smooth and sharp edges, no randomness."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    img = np.stack([255 * x / (w - 1), 255 * y / (h - 1), 127.5 + 127.5 * np.sin((x + 2 * y + 17 * phase) / 9.0)], -1)
    disc = (x - w * 0.35) ** 2 + (y - h * (0.4 + 0.1 * phase)) ** 2 < (min(w, h) * 0.22) ** 2
    img[disc] = [240, 30 + 60 * phase, 60]
    img[(y > h * 0.7) & (y < h * 0.8)] = [20, 200 - 80 * phase, 230]
    cheq = (x > w * 0.7) & (((x // 5 + y // 5) % 2) == 0)
    img[cheq] = 255 - img[cheq]
    return Image.fromarray(np.clip(np.floor(img + 0.5), 0, 255).astype(np.uint8), "RGB")


def synth_audio(seconds, rate=16000, phase=0):
    """A chirp plus two harmonics under a slow envelope, quantised to 16-bit PCM (the WAV is the ground truth)."""
    t = np.arange(int(round(seconds * rate))) / rate
    f = 180 + 60 * phase + 900 * t / max(seconds, 1e-9)
    x = 0.45 * np.sin(2 * np.pi * np.cumsum(f) / rate) + 0.2 * np.sin(2 * np.pi * 440 * t) + 0.1 * np.sin(2 * np.pi * 3100 * t)
    x *= 0.55 + 0.45 * np.sin(2 * np.pi * 2.3 * t + phase)
    return np.clip(np.floor(x * 32767 * 0.8 + 0.5), -32768, 32767).astype(np.int16)


class Ctx:
    def __init__(self, out, name, seed, dtype):
        self.name, self.seed, self.dtype = name, seed, dtype
        self.dir = Path(out) / name
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(parents=True)
        self.golden, self.cases, self.stats, self.notes = {}, {}, {}, []

    def put(self, case, **tensors):
        for k, v in tensors.items():
            if v is None:
                continue
            if not torch.is_tensor(v):
                v = torch.as_tensor(np.asarray(v))
            if v.dtype in (torch.float64, torch.bfloat16, torch.float16):
                v = v.float()
            self.golden[f"{case}.{k}"] = v.detach().contiguous().clone()

    def image(self, name="input.png", **kw):
        im = synth_image(**kw)
        im.save(self.dir / name)
        return Image.open(self.dir / name).convert("RGB")

    def audio(self, seconds, name="input.wav", **kw):
        pcm = synth_audio(seconds, **kw)
        with wave.open(str(self.dir / name), "wb") as f:
            f.setnchannels(1); f.setsampwidth(2); f.setframerate(16000); f.writeframes(pcm.tobytes())
        return pcm.astype(np.float32) / 32768.0


# ---------------------------------------------------------------- weights
STORED_BUFFERS = {"input_min", "input_max", "output_min", "output_max", "layer_scalar", "std_bias", "std_scale"}   # besides BatchNorm state
ZERO_CENTRED = {"Gemma3RMSNorm", "Qwen3_5RMSNorm", "GemmaRMSNorm", "Gemma2RMSNorm"}          # y = x_hat * (1 + w)
RESIDUAL = re.compile(r"(o_proj|down_proj|out_proj|fc2|linear_fc2|c_proj|dense|proj|lin2|out_lin|post|linear_end|ffw_layer_2|per_layer_projection)(\.linear)?$")


def gen_for(seed, name):
    h = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(h[:7], "little"))


@torch.no_grad()
def randomize(model, seed, dtype, special_ids=(), emb_std=0.5, gain=1.0, res_gain=1.7, overrides=()):
    """Every trainable parameter and every state buffer gets a non-trivial value drawn from (seed, its own name)."""
    seen = set()
    for mname, mod in model.named_modules():
        cls = type(mod).__name__
        own = [(n, p, True) for n, p in mod.named_parameters(recurse=False)]
        own += [(n, b, False) for n, b in mod.named_buffers(recurse=False)
                if n not in mod._non_persistent_buffers_set and b.is_floating_point()]
        for n, p, is_param in own:
            if id(p) in seen:
                continue
            seen.add(id(p))
            full = f"{mname}.{n}" if mname else n
            g = gen_for(seed, full)
            N = lambda s=1.0, m=0.0: torch.randn(p.shape, generator=g) * s + m
            U = lambda a, b: torch.rand(p.shape, generator=g) * (b - a) + a
            is_norm = "norm" in cls.lower() and "embed" not in cls.lower()
            for pat, fn in overrides:
                if re.search(pat, full):
                    v = fn(p, g); break
            else:
                if (is_param and not p.requires_grad) or (not is_param and n not in STORED_BUFFERS and "BatchNorm" not in cls):
                    v = p.data.clone()                       # constants (1/n_points, D-FINE reg_scale, Whisper sinusoids): keep
                elif cls in ZERO_CENTRED:
                    v = N(0.25)
                elif n in ("input_min", "output_min"):
                    v = -U(1.2, 2.2)
                elif n in ("input_max", "output_max"):
                    v = U(1.2, 2.2)
                elif n == "running_var":
                    v = torch.exp(N(0.3))
                elif n == "running_mean":
                    v = N(0.2)
                elif n == "A_log":
                    v = torch.log(U(0.05, 4.0))
                elif n == "dt_bias":
                    v = N(0.7, -1.0)
                elif n == "layer_scalar":
                    v = U(0.5, 1.3)
                elif n == "per_dim_scale":
                    v = N(0.5)
                elif n in ("std_bias",):
                    v = N(0.5)
                elif n in ("std_scale", "scale", "per_expert_scale"):
                    v = N(0.2, 1.0)
                elif n == "logit_scale":
                    v = torch.full_like(p, 2.0)
                elif n == "logit_bias":
                    v = torch.full_like(p, -1.5)
                elif is_norm and n == "weight":
                    v = N(0.25, 1.0)
                elif n == "bias":
                    v = N(0.1)
                elif isinstance(mod, nn.Embedding):
                    v = N(emb_std)
                elif p.ndim >= 2 and n != "weight" and p.ndim <= 4 and "embed" in n:
                    v = N(0.4)
                elif p.ndim >= 2:
                    conv1d_t = cls == "Conv1D"          # GPT-2: stored [in, out]
                    if p.ndim == 3 and not isinstance(mod, nn.modules.conv._ConvNd):
                        fan = p.shape[-1]               # stacked experts
                    else:
                        fan = p.shape[0] if conv1d_t else p[0].numel()
                    v = N((res_gain if RESIDUAL.search(mname) else gain) / math.sqrt(max(fan, 1)))
                else:
                    v = N(0.3)
            v = v.to(torch.float32)
            if isinstance(mod, nn.Embedding) and p.shape[0] > max(special_ids, default=0) and "position" not in mname:
                v[list(special_ids)] *= 0.35             # keep special tokens from winning the greedy argmax
            p.data.copy_(v.to(dtype).to(torch.float32))
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    # lm_head rows of special tokens, untied case
    head = getattr(model, "lm_head", None)
    if isinstance(head, nn.Linear) and special_ids:
        emb = model.get_input_embeddings()
        if emb is None or head.weight.data_ptr() != emb.weight.data_ptr():
            head.weight[list(special_ids)] *= 0.35
            head.weight.copy_(head.weight.to(dtype).float())
    return model.float().eval()


def build(cls, cfg, **kw):
    torch.manual_seed(0)
    if hasattr(cls, "_from_config"):
        return cls._from_config(cfg, attn_implementation="eager", **kw) if not kw.pop("plain", False) else cls(cfg)
    return cls(cfg)


def _flat_rope(d, moe=None):
    """v5 `rope_parameters` -> the top-level rope keys that checkpoints published before v5 carry."""
    rp = d.pop("rope_parameters", None)
    if not isinstance(rp, dict):
        return d
    if "full_attention" in rp:                                # Gemma 3
        d["rope_theta"], d["rope_local_base_freq"] = rp["full_attention"]["rope_theta"], rp["sliding_attention"]["rope_theta"]
        d["rope_scaling"] = None
        return d
    rp = dict(rp)
    d["rope_theta"] = rp.pop("rope_theta", None)
    if "partial_rotary_factor" in rp:
        d["partial_rotary_factor"] = rp.pop("partial_rotary_factor")
    kind = rp.pop("rope_type", "default")
    if kind == "longrope":
        rp.pop("original_max_position_embeddings", None)      # lives at the top level of Phi-3 configs
        d["rope_scaling"] = {"type": "longrope", **rp}
    elif "mrope_section" in rp:
        d["rope_scaling"] = {"type": "mrope", **rp}
    elif kind == "default":
        d["rope_scaling"] = None
    else:
        d["rope_scaling"] = {"rope_type": kind, **rp}
    return d


def hub_style(c):
    """Rewrite a v5-saved config the way the family's published checkpoints look."""
    mt = c.get("model_type")
    if mt in ("qwen3_5",):
        return c                                              # published with v5 configs already
    if mt == "gemma4":
        t = c["text_config"]
        full = next((v for v in (t.pop("per_layer_config", None) or {}).values()), {})
        t["global_head_dim"] = full.get("head_dim", t["head_dim"])
        t["num_global_key_value_heads"] = full.get("num_key_value_heads")
        return c
    if "dtype" in c:
        c["torch_dtype"] = c.pop("dtype")
    if mt == "qwen2_vl":                                      # text fields sit at the top level
        t = c.pop("text_config")
        t.pop("model_type")
        c = {**_flat_rope(t), **c}
        v = c["vision_config"]
        v.pop("rope_parameters", None); v["model_type"] = "qwen2_vl"
        v["in_chans"] = v.pop("in_channels"); v["spatial_patch_size"] = v["patch_size"]
        c.pop("layer_types", None)
        return c
    for k in ("text_config", "vision_config", "audio_config"):
        if isinstance(c.get(k), dict) and "rope_parameters" in c[k]:
            c[k] = _flat_rope(c[k])
    return _flat_rope(c)


def save_model(ctx, model, sub=None):
    """save_pretrained in the storage dtype; config.json becomes hub style, the v5 form is kept as config.v5.json."""
    d = ctx.dir / sub if sub else ctx.dir
    store = copy.deepcopy(model).to(ctx.dtype)
    if hasattr(store, "config") and hasattr(store.config, "dtype"):
        store.config.dtype = ctx.dtype
    store.save_pretrained(d)
    p = d / "config.json"
    v5 = p.read_text()
    hub = json.dumps(hub_style(json.loads(v5)), indent=2) + "\n"
    if json.loads(hub) != json.loads(v5):
        (d / "config.v5.json").write_text(v5)
        p.write_text(hub)
    return d


def rename_keys(path, fn):
    """Rewrite tensor names in place (where v5 saves a flatter layout than the published files have)."""
    save_file({fn(k): v for k, v in load_file(path).items()}, path, metadata={"format": "pt"})


@torch.no_grad()
def sensitivity(ctx, model, cases, run=None, floor=1e-4):
    """Nudge every parameter in turn; one that moves no recorded output would hide a wrong implementation."""
    run = run or (lambda i: model(**i).logits)
    seq = {c: {k: v for k, v in i.items()} for c, i in cases.items()}
    base = {c: run(i) for c, i in seq.items()}
    dead = []
    items = list(model.named_parameters()) + [(n, b) for n, b in model.named_buffers() if b.is_floating_point() and n in model.state_dict()]
    for n, p in items:
        keep = p.data.clone()
        g = gen_for(1, n)
        p.data.copy_(keep * 0.7 + 0.1 * keep.abs().mean().clamp(min=0.1) * torch.randn(keep.shape, generator=g))
        worst = 0.0
        for c, i in seq.items():
            worst = max(worst, float((run(i) - base[c]).abs().max()))
            if worst > floor:
                break
        p.data.copy_(keep)
        if worst <= floor:
            dead.append(n)
    ctx.stats["params_checked"], ctx.stats["params_without_effect"] = len(items), dead


@torch.no_grad()
def check_reload(ctx, cls, model, inputs, out="logits"):
    """Load the checkpoint that was just written and compare: proves the files alone reproduce the golden."""
    again = cls.from_pretrained(ctx.dir, dtype=torch.float32, attn_implementation="eager").eval()
    a = getattr(model(**inputs), out)
    b = getattr(again(**inputs), out)
    d = float((a - b).abs().max())
    ctx.stats["reload_max_abs_diff"] = d
    assert d <= 1e-5, f"{ctx.name}: reload differs by {d}"


# ---------------------------------------------------------------- decoder-only language models
@torch.no_grad()
def lm_case(model, inputs, n_new=N_NEW):
    """Full forward, then `generate` greedily with the cache; EOS is ignored so that all n_new steps exist."""
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    out = model(**inputs, use_cache=False)
    gen = model.generate(**inputs, max_new_tokens=n_new, do_sample=False, output_logits=True, return_dict_in_generate=True)
    n = inputs["input_ids"].shape[1]
    ids = gen.sequences[0, n:]
    steps = torch.stack([l[0] for l in gen.logits]).float()
    top = steps.topk(2, -1).values
    return {"logits": out.logits[0].float(), "greedy_ids": ids, "step_logits": steps}, {
        "prompt_tokens": n, "logit_std": float(out.logits.float().std()), "distinct_greedy": int(ids.unique().numel()),
        "min_top2_margin": float((top[:, 0] - top[:, 1]).min()),
        "cached_vs_full_last": float((steps[0] - out.logits[0, -1]).abs().max())}


def good(st, ids, special_ids, floor=0.02):
    return (st["distinct_greedy"] >= 8 and st["min_top2_margin"] >= floor and st["logit_std"] > 0.4
            and st["cached_vs_full_last"] < 5e-4 and not (set(ids.tolist()) & set(special_ids)))


def search(ctx, model, cases, special_ids=(), runner=lm_case, tries=60, **rk):
    """Re-draw the weights until every case decodes to a varied, well separated greedy sequence."""
    best = None
    for k in range(tries):
        seed = ctx.seed + 1000 * k
        randomize(model, seed, ctx.dtype, special_ids, **rk)
        res = {c: runner(model, i) for c, i in cases.items()}
        score = min(min(st["distinct_greedy"], 8) + (4 if st["min_top2_margin"] >= 0.02 else 0)
                    - (8 if set(o["greedy_ids"].tolist()) & set(special_ids) else 0) for o, st in res.values())
        if best is None or score > best[0]:
            best = (score, seed, res)
        if all(good(st, o["greedy_ids"], special_ids) for o, st in res.values()):
            break
    score, seed, res = best
    randomize(model, seed, ctx.dtype, special_ids, **rk)
    ctx.stats["weight_seed"], ctx.stats["tries"] = seed, k + 1
    for c, i in cases.items():
        o, st = runner(model, i)
        ctx.put(c, **o)
        ctx.stats[c] = st
        if not good(st, o["greedy_ids"], special_ids):
            ctx.notes.append(f"{c}: below the greedy quality bar: {st}")
    return model


def store_inputs(ctx, case, inputs, skip=("attention_mask",)):
    ctx.put(case, **{k: (v[0] if k in ("input_ids", "mm_token_type_ids", "decoder_input_ids", "token_type_ids") else v)
                     for k, v in inputs.items() if k not in skip and (torch.is_tensor(v) or isinstance(v, (list, np.ndarray)))})


def wrap_tok(ctx, tk, bos=None, eos=None, pad=None, unk=None, extra=None, chat=None, max_len=4096, extra_list=(), **kw):
    t = PreTrainedTokenizerFast(tokenizer_object=tk, model_max_length=max_len, clean_up_tokenization_spaces=False,
                                **{k: v for k, v in dict(bos_token=bos, eos_token=eos, pad_token=pad, unk_token=unk).items() if v},
                                **({"extra_special_tokens": extra} if extra else {}), **kw)
    if chat:
        t.chat_template = chat
    t.save_pretrained(ctx.dir)
    return t


def tok_samples(ctx, t):
    """Plain encode/decode pairs, so that the tokenizer can be checked on its own."""
    texts = ["Hello world, this is a test.", "It's easy, isn't it?  Two  spaces\n\nand lines.", "Le caf\u00e9 \u6771\u4eac 12345 + 3.14 \U0001f642", "  leading and trailing  "]
    ctx.cases["tokenizer"] = [{"text": s, "ids": t(s)["input_ids"], "ids_no_special": t(s, add_special_tokens=False)["input_ids"],
                               "decoded": t.decode(t(s)["input_ids"], skip_special_tokens=True)} for s in texts]


def specials(t):
    return sorted(set(t.all_special_ids) | {i for i, a in t.added_tokens_decoder.items() if a.special})


LONG = ("A local model answers questions about images, sounds and text on your own machine. "
        "The quick brown fox jumps over the lazy dog, isn't it? Numbers 1 2 3 and 2024.")
CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['content'] is string %}{{ m['content'] }}"
          "{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
          "{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
LLAMA3_CHAT = ("{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
               "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
GEMMA3_CHAT = ("{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim + '<end_of_turn>\n' }}"
               "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}")
PHI3_CHAT = ("{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
             "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}")
GEMMA4_CHAT = ("{{ bos_token }}{% for m in messages %}{{ '<|turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}{% if m['content'] is string %}"
               "{{ m['content'] | trim }}{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ '\n\n<|image|>\n\n' }}{% elif c['type'] == 'audio' %}{{ '<|audio|>' }}"
               "{% elif c['type'] == 'text' %}{{ c['text'] | trim }}{% endif %}{% endfor %}{% endif %}{{ '<turn|>\n' }}{% endfor %}"
               "{% if add_generation_prompt %}{{ '<|turn>model\n' }}{% endif %}")
SMOLVLM_CHAT = ("<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}{% if m['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
                "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% elif c['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
                "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}")
MSGS = [{"role": "system", "content": "You are a helpful model."}, {"role": "user", "content": "What is in this picture?"}]


BASE = dict(hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
            num_hidden_layers=3, max_position_embeddings=512)


def ids_of(t, **kw):
    return {k: (t.convert_tokens_to_ids(v) if isinstance(v, str) else v) for k, v in kw.items()}


QWEN_SP = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]


GEMMA_SP = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]


# ---------------------------------------------------------------- multimodal decoder families
def save_processor(ctx, proc):
    """Write both layouts seen on the Hub: processor_config.json (v5) and preprocessor_config.json (v4)."""
    proc.save_pretrained(ctx.dir)
    merged = {}
    for part in ("image_processor", "feature_extractor"):
        p = getattr(proc, part, None)
        if p is not None:
            merged.update(json.loads(p.to_json_string()))
    (ctx.dir / "preprocessor_config.json").write_text(json.dumps(merged, indent=2) + "\n")
    tpl = getattr(proc, "chat_template", None) or getattr(proc.tokenizer, "chat_template", None)
    if tpl:
        (ctx.dir / "chat_template.jinja").write_text(tpl)


def pil_variant(ctx, case, pil_cls, fast_proc, images, name="pixel_values", **kw):
    """The same preprocessing with the PIL backend, stored as the flat positions where it differs from torchvision and the PIL values there."""
    from_fast = {k: v for k, v in fast_proc.to_dict().items() if k not in ("image_processor_type", "processor_class")}
    b = pil_cls(**from_fast)(images=images, return_tensors="pt", **kw)[name].float()
    a = ctx.golden[f"{case}.{name}"]
    st = ctx.stats.setdefault(case, {})
    if a.shape != b.shape:
        st["pil_vs_torchvision"] = f"shape {tuple(a.shape)} vs {tuple(b.shape)}"
        ctx.put(case, **{name + "_pil": b})
        return
    d = (a - b).abs().flatten()
    idx = (d > 1e-4).nonzero().flatten()
    st["pil_vs_torchvision"] = {"max": float(d.max()), "differing_share": float(len(idx) / d.numel())}
    ctx.put(case, **{name + "_pil_index": idx.to(torch.int32), name + "_pil_value": b.flatten()[idx]})


def slim(ctx, case, names, note):
    for n in names:
        if ctx.golden.pop(f"{case}.{n}", None) is not None:
            ctx.cases[case].setdefault("omitted", {})[n] = note


def tail_logits(ctx, case, keep=24):
    ctx.golden[f"{case}.logits_tail"] = ctx.golden.pop(f"{case}.logits")[-keep:].contiguous()


def mm_cases(ctx, proc, model, raw, special_ids, extra_put=None, **rk):
    """raw: case -> dict(text=..., images=[...], audio=...). Returns nothing; fills golden for every case."""
    cases = {}
    for c, r in raw.items():
        kw = {k: v for k, v in r.items() if k not in ("messages",)}
        if "messages" in r:
            kw["text"] = proc.apply_chat_template(r["messages"], tokenize=False, add_generation_prompt=True)
            ctx.cases[c] = {"messages": r["messages"], "rendered": kw["text"]}
        else:
            ctx.cases[c] = {"prompt": kw["text"]}
        enc = proc(return_tensors="pt", **kw)
        cases[c] = {k: v for k, v in enc.items() if torch.is_tensor(v)}
    for c, i in cases.items():
        store_inputs(ctx, c, i)
        if extra_put:
            extra_put(c, i)
    search(ctx, model, cases, special_ids, **rk)
    t = proc.tokenizer
    for c in cases:
        ctx.cases[c]["generated_text"] = t.decode(ctx.golden[f"{c}.greedy_ids"])
    tok_samples(ctx, t)
    return cases


G4_SP = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>", "<|think|>", "<|channel>", "<channel|>", "<|tool>", "<tool|>",
         "<|image>", "<|image|>", "<image|>", "<|audio>", "<|audio|>", "<audio|>", "<|video|>"]


def g4_processor(ctx, patch=4, soft=70):
    from transformers import Gemma4AudioFeatureExtractor, Gemma4ImageProcessor, Gemma4Processor, Gemma4VideoProcessor
    tk = sentencepiece_bpe("gemma", G4_SP, bos="<bos>")
    t = wrap_tok(ctx, tk, bos="<bos>", eos="<turn|>", pad="<pad>", unk="<unk>", chat=GEMMA4_CHAT,
                 extra=dict(boi_token="<|image>", eoi_token="<image|>", image_token="<|image|>", boa_token="<|audio>", eoa_token="<audio|>", audio_token="<|audio|>"))
    ip = Gemma4ImageProcessor(patch_size=patch, max_soft_tokens=soft, pooling_kernel_size=3)
    proc = Gemma4Processor(feature_extractor=Gemma4AudioFeatureExtractor(), image_processor=ip, tokenizer=t,
                           video_processor=Gemma4VideoProcessor(patch_size=patch), chat_template=GEMMA4_CHAT, image_seq_length=soft)
    save_processor(ctx, proc)
    return proc


def g4_text(t, layers, shared, **kw):
    return dict(vocab_size=len(t), vocab_size_per_layer_input=len(t), hidden_size=64, intermediate_size=96, num_hidden_layers=len(layers),
                layer_types=layers, num_attention_heads=4, head_dim=16, global_head_dim=32, num_kv_shared_layers=shared, sliding_window=8,
                max_position_embeddings=512, final_logit_softcapping=10.0, pad_token_id=0, eos_token_id=1, bos_token_id=2, tie_word_embeddings=True,
                rope_parameters=dict(sliding_attention=dict(rope_type="default", rope_theta=10000.0),
                                     full_attention=dict(rope_type="proportional", rope_theta=1000000.0, partial_rotary_factor=0.25)), **kw)


def g4_vision(**kw):
    return dict(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3, head_dim=16,
                patch_size=4, pooling_kernel_size=3, position_embedding_size=64, **kw)


def g4_ids(t):
    return ids_of(t, boi_token_id="<|image>", eoi_token_id="<image|>", image_token_id="<|image|>", boa_token_id="<|audio>",
                  eoa_token_index="<audio|>", audio_token_id="<|audio|>", video_token_id="<|video|>")


def g4_run(ctx, cfg, proc, raw, **rk):
    from transformers import Gemma4ForConditionalGeneration as M
    model = build(M, cfg)
    im_soft = {}

    def extra(c, i):
        if "image_position_ids" in i:
            im_soft[c] = i["image_position_ids"]
    cases = mm_cases(ctx, proc, model, raw, specials(proc.tokenizer), extra, emb_std=0.14, overrides=[
        (r"language_model.*post_(attention|feedforward)_layernorm.weight", lambda p, g: torch.randn(p.shape, generator=g) * 0.3 + 2.0)], **rk)
    with torch.no_grad():
        for c, i in cases.items():
            if "pixel_values" in i:
                f = model.model.get_image_features(i["pixel_values"], i["image_position_ids"])
                ctx.put(c, image_features=torch.cat(list(f.pooler_output)), vision_tower=f.last_hidden_state)
            if "input_features" in i:
                f = model.model.get_audio_features(i["input_features"], i["input_features_mask"])
                ctx.put(c, audio_features=f.pooler_output[f.attention_mask.bool()], audio_mask=f.attention_mask)
    save_model(ctx, model)
    check_reload(ctx, M, model, cases["text"])
    sensitivity(ctx, model, cases)
    return model, cases


@family("gemma4")
def _(ctx):
    """Gemma 4 E2B-like: PLE, sliding/global with different head_dim, shared KV + double-wide MLP, soft-capped logits, image and audio towers."""
    from transformers import Gemma4Config
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
    proc = g4_processor(ctx)
    t = proc.tokenizer
    S, F_ = "sliding_attention", "full_attention"
    cfg = Gemma4Config(
        text_config=g4_text(t, [S, F_, S, F_, S, F_], 2, num_key_value_heads=1, hidden_size_per_layer_input=16, use_double_wide_mlp=True),
        vision_config=g4_vision(use_clipped_linears=True),
        audio_config=dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, subsampling_conv_channels=[128, 8], output_proj_dims=48,
                          use_clipped_linears=True), **g4_ids(t))
    im = ctx.image()
    wav = ctx.audio(1.03)
    U = lambda *c: [{"role": "user", "content": list(c)}]
    T = lambda s: {"type": "text", "text": s}
    raw = {
        "text": {"text": "<bos>" + LONG},
        "image": {"messages": U({"type": "image"}, T("What is in this picture?")), "images": [im]},
        "audio": {"messages": U({"type": "audio"}, T("Transcribe the following audio:")), "audio": [wav]},
        "image_audio": {"messages": [{"role": "system", "content": "You are a helpful model."}] + U({"type": "image"}, T("and"), {"type": "audio"}, T("Describe.")), "images": [im], "audio": [wav]},
    }
    model, cases = g4_run(ctx, cfg, proc, raw)
    slim(ctx, "image_audio", ("pixel_values", "image_position_ids", "input_features", "input_features_mask", "image_features", "vision_tower", "audio_features", "audio_mask"),
         "identical to the `image` / `audio` case")
    tail_logits(ctx, "image_audio")
    pil_variant(ctx, "image", Gemma4ImageProcessorPil, proc.image_processor, [im])


@family("gemma4_large")
def _(ctx):
    """Gemma 4 26B-A4B/31B-like: no PLE, attention_k_eq_v with separate global KV heads, MoE, bidirectional vision blocks, standardised vision output."""
    from transformers import Gemma4Config
    proc = g4_processor(ctx)
    t = proc.tokenizer
    S, F_ = "sliding_attention", "full_attention"
    cfg = Gemma4Config(
        text_config=g4_text(t, [S, S, F_], 0, num_key_value_heads=2, num_global_key_value_heads=1, attention_k_eq_v=True, hidden_size_per_layer_input=0,
                            enable_moe_block=True, num_experts=6, top_k_experts=2, moe_intermediate_size=32, use_bidirectional_attention="vision"),
        vision_config=g4_vision(standardize=True), audio_config=None, **g4_ids(t))
    im = ctx.image()
    T = lambda s: {"type": "text", "text": s}
    raw = {"text": {"text": "<bos>" + LONG},
           "image": {"messages": [{"role": "user", "content": [{"type": "image"}, T("What is in this picture?")]}], "images": [im]}}
    g4_run(ctx, cfg, proc, raw)


def qwen_vl_processor(ctx, style, proc_cls, vp_cls, patch):
    from transformers import Qwen2VLImageProcessor
    t = wrap_tok(ctx, byte_level(style, QWEN_SP), eos="<|im_end|>", pad="<|endoftext|>", chat=CHATML)
    size = {"shortest_edge": 4 * (2 * patch) ** 2, "longest_edge": 36 * (2 * patch) ** 2}
    mean_std = {} if style == "qwen2" else dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    ip = Qwen2VLImageProcessor(patch_size=patch, temporal_patch_size=2, merge_size=2, size=size, **mean_std)
    proc = proc_cls(image_processor=ip, tokenizer=t, video_processor=vp_cls(patch_size=patch, size=size), chat_template=CHATML)
    save_processor(ctx, proc)
    return proc


def vl_raw(ctx):
    im, im2 = ctx.image(), ctx.image("input2.png", w=60, h=90, phase=1)
    T = lambda s: {"type": "text", "text": s}
    sysm = {"role": "system", "content": "You are a helpful model."}
    return {
        "text": {"text": LONG},
        "image": {"messages": [sysm, {"role": "user", "content": [{"type": "image"}, T("What is in this picture?")]}], "images": [im]},
        "images2": {"messages": [{"role": "user", "content": [T("First"), {"type": "image"}, T("then"), {"type": "image"}, T("Describe.")]}], "images": [im, im2]},
    }, [im]


def qwen_vl_extra(ctx, model):
    def extra(c, i):
        if "image_grid_thw" in i:
            pos, delta = model.model.get_rope_index(i["input_ids"], mm_token_type_ids=i["mm_token_type_ids"], image_grid_thw=i["image_grid_thw"])
            ctx.put(c, mrope_position_ids=pos[:, 0], rope_delta=delta.reshape(-1))
    return extra


@torch.no_grad()
def qwen_vl_finish(ctx, cls, model, cases, proc, imgs):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    for c, i in cases.items():
        if "pixel_values" in i:
            f = model.model.get_image_features(i["pixel_values"], i["image_grid_thw"])
            ctx.put(c, image_features=torch.cat(list(f.pooler_output)))
    pil_variant(ctx, "image", Qwen2VLImageProcessorPil, proc.image_processor, imgs)
    slim(ctx, "images2", ("pixel_values",), "rows of the first image as in `image`; see image_features for the rest")
    tail_logits(ctx, "images2")
    save_model(ctx, model)
    model.model.rope_deltas = None
    check_reload(ctx, cls, model, cases["image"])
    sensitivity(ctx, model, {c: cases[c] for c in ("image",)})


VL_IDS = dict(image_token_id="<|image_pad|>", video_token_id="<|video_pad|>", vision_start_token_id="<|vision_start|>", vision_end_token_id="<|vision_end|>")


@family("qwen3_5")
def _(ctx):
    """Qwen3.5 small dense: 3 gated-DeltaNet layers then 1 gated full-attention layer, interleaved mrope, vision tower. Text prompt > 64 tokens crosses a DeltaNet chunk."""
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration as M, Qwen3VLProcessor, Qwen3VLVideoProcessor
    proc = qwen_vl_processor(ctx, "qwen3_5", Qwen3VLProcessor, Qwen3VLVideoProcessor, 8)
    t = proc.tokenizer
    cfg = Qwen3_5Config(
        text_config=dict(vocab_size=len(t), hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
                         linear_conv_kernel_dim=4, linear_key_head_dim=16, linear_value_head_dim=24, linear_num_key_heads=2, linear_num_value_heads=4,
                         layer_types=["linear_attention"] * 3 + ["full_attention"], tie_word_embeddings=True, max_position_embeddings=512,
                         rope_parameters=dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=0.5, mrope_section=[4, 2, 2], mrope_interleaved=True),
                         **ids_of(t, eos_token_id="<|im_end|>", pad_token_id=None)),
        vision_config=dict(depth=2, hidden_size=64, intermediate_size=96, num_heads=4, patch_size=8, out_hidden_size=64, num_position_embeddings=64),
        tie_word_embeddings=True, **ids_of(t, **VL_IDS))
    model = build(M, cfg)
    raw, imgs = vl_raw(ctx)
    cases = mm_cases(ctx, proc, model, raw, specials(t), qwen_vl_extra(ctx, model), runner=vl_runner)
    with torch.no_grad():                                   # recurrent and conv state after the text prompt
        out = model(**cases["text"], use_cache=True)
        for li in range(3):
            ctx.put("text", **{f"layer{li}_conv_state": out.past_key_values.get_conv_state(li, state_idx=0),
                               f"layer{li}_recurrent_state": out.past_key_values.get_recurrent_state(li, state_idx=0)})
    qwen_vl_finish(ctx, M, model, cases, proc, imgs)


def vl_runner(model, inputs):
    model.model.rope_deltas = None
    return lm_case(model, inputs)


@family("qwen2_vl")
def _(ctx):
    """Qwen2-VL: contiguous mrope sections, CLIP mean/std, Conv3d patches, quick_gelu vision MLP, patch merger."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration as M, Qwen2VLProcessor, Qwen2VLVideoProcessor
    proc = qwen_vl_processor(ctx, "qwen2", Qwen2VLProcessor, Qwen2VLVideoProcessor, 8)
    t = proc.tokenizer
    cfg = Qwen2VLConfig(
        text_config=dict(vocab_size=len(t), hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
                         max_position_embeddings=512, rms_norm_eps=1e-6,
                         rope_parameters=dict(rope_type="default", rope_theta=1000000.0, mrope_section=[2, 3, 3]), **ids_of(t, bos_token_id="<|endoftext|>", eos_token_id="<|im_end|>")),
        vision_config=dict(depth=2, embed_dim=64, hidden_size=64, num_heads=4, mlp_ratio=2, patch_size=8, spatial_merge_size=2, temporal_patch_size=2),
        tie_word_embeddings=True, **ids_of(t, **VL_IDS))
    model = build(M, cfg)
    raw, imgs = vl_raw(ctx)
    cases = mm_cases(ctx, proc, model, raw, specials(t), qwen_vl_extra(ctx, model), runner=vl_runner)
    qwen_vl_finish(ctx, M, model, cases, proc, imgs)


@family("smolvlm")
def _(ctx):
    """SmolVLM / Idefics3: tiling with row/col tokens, SigLIP tower with fractional-position ids, pixel-shuffle connector, Llama text model."""
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration as M, SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
    sp = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"] + \
         [f"<row_{r}_col_{c}>" for r in range(1, 5) for c in range(1, 5)]
    t = wrap_tok(ctx, byte_level("smollm", sp), bos="<|im_start|>", eos="<end_of_utterance>", pad="<|im_end|>", unk="<|endoftext|>", chat=SMOLVLM_CHAT,
                 extra=dict(image_token="<image>", fake_image_token="<fake_token_around_image>", end_of_utterance_token="<end_of_utterance>", global_image_token="<global-img>"))
    ip = SmolVLMImageProcessor(size={"longest_edge": 96}, max_image_size={"longest_edge": 32})
    proc = SmolVLMProcessor(image_processor=ip, tokenizer=t, video_processor=SmolVLMVideoProcessor(size={"longest_edge": 32}, max_image_size={"longest_edge": 32}), image_seq_len=4, chat_template=SMOLVLM_CHAT)
    save_processor(ctx, proc)
    cfg = SmolVLMConfig(
        text_config=dict(model_type="llama", vocab_size=len(t), hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                         max_position_embeddings=512, rms_norm_eps=1e-5, rope_parameters=dict(rope_type="default", rope_theta=100000.0), tie_word_embeddings=False,
                         **ids_of(t, pad_token_id="<|im_end|>", bos_token_id="<|im_start|>", eos_token_id="<end_of_utterance>")),
        vision_config=dict(hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8),
        scale_factor=2, tie_word_embeddings=False, **ids_of(t, image_token_id="<image>", pad_token_id="<|im_end|>"))
    model = build(M, cfg)
    im, small = ctx.image(), ctx.image("input2.png", w=30, h=40, phase=1)
    T = lambda s: {"type": "text", "text": s}
    raw = {"text": {"text": LONG},
           "image": {"messages": [{"role": "user", "content": [{"type": "image"}, T("What is in this picture?")]}], "images": [[im]]},
           "images2": {"messages": [{"role": "user", "content": [T("First"), {"type": "image"}, T("then"), {"type": "image"}, T("Describe.")]}], "images": [[small, im]]}}
    cases = mm_cases(ctx, proc, model, raw, specials(t))
    with torch.no_grad():
        i = cases["image"]
        f = model.model.get_image_features(i["pixel_values"], i["pixel_attention_mask"])
        ctx.put("image", image_features=f.pooler_output if hasattr(f, "pooler_output") else f)
    tail_logits(ctx, "images2")
    ctx.golden["images2.pixel_values_small"] = ctx.golden.pop("images2.pixel_values")[:, :10].contiguous()   # input2.png only
    for k in ("image", "images2"):
        ctx.put(k, pixel_attention_mask=ctx.golden[f"{k}.pixel_attention_mask"].to(torch.uint8))
    # LANCZOS on non-square input: both backends
    pil_variant(ctx, "image", SmolVLMImageProcessorPil, ip, [[im]])
    save_model(ctx, model)
    check_reload(ctx, M, model, cases["image"])
    sensitivity(ctx, model, {c: cases[c] for c in ("image",)})


# ---------------------------------------------------------------- encoder-decoder speech models
@torch.no_grad()
def seq2seq_case(model, inputs, n_new=N_NEW):
    """Teacher-forced full pass over the prompt, then a manual cached greedy loop (no generation-time token rules)."""
    enc_in = {k: v for k, v in inputs.items() if k != "decoder_input_ids"}
    dec = inputs["decoder_input_ids"]
    out = model(**inputs, use_cache=False)
    enc = model.get_encoder()(**enc_in)
    cache, ids, steps, cur = None, [], [], dec
    for _ in range(n_new):
        o = model(encoder_outputs=enc, decoder_input_ids=cur, past_key_values=cache, use_cache=True)
        cache = o.past_key_values
        steps.append(o.logits[0, -1].float())
        cur = steps[-1].argmax().view(1, 1)
        ids.append(int(cur))
    steps, ids = torch.stack(steps), torch.tensor(ids)
    full = model(encoder_outputs=enc, decoder_input_ids=torch.cat([dec, ids[None]], 1), use_cache=False).logits[0].float()
    top = steps.topk(2, -1).values
    n = dec.shape[1]
    return {"logits": out.logits[0].float(), "greedy_ids": ids, "step_logits": steps, "encoder_hidden": enc.last_hidden_state[0].float()}, {
        "prompt_tokens": n, "logit_std": float(out.logits.float().std()), "distinct_greedy": int(ids.unique().numel()),
        "min_top2_margin": float((top[:, 0] - top[:, 1]).min()), "cached_vs_full_last": float((full[n - 1:-1] - steps).abs().max())}


def speech_finish(ctx, cls, model, cases, t):
    for c, i in cases.items():
        store_inputs(ctx, c, i)
        ctx.cases.setdefault(c, {})["generated_text"] = t.decode(ctx.golden[f"{c}.greedy_ids"])
    tok_samples(ctx, t)
    save_model(ctx, model)
    first = next(iter(cases.values()))
    check_reload(ctx, cls, model, first)
    sensitivity(ctx, model, cases)


@family("whisper")
def _(ctx):
    """Whisper: log-mel front end (chunk_length 5 s here, so 500 frames), two convs, sinusoidal encoder positions, learned decoder positions."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration as M
    sp = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|fr|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"] + \
         [f"<|{i * 0.02:.2f}|>" for i in range(0, 51)]
    t = wrap_tok(ctx, byte_level("whisper", sp), bos="<|endoftext|>", eos="<|endoftext|>", unk="<|endoftext|>")
    fe = WhisperFeatureExtractor(feature_size=80, chunk_length=5)
    fe.save_pretrained(ctx.dir)
    i = lambda s: t.convert_tokens_to_ids(s)
    cfg = WhisperConfig(vocab_size=len(t), num_mel_bins=80, d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
                        encoder_ffn_dim=128, decoder_ffn_dim=128, max_source_positions=250, max_target_positions=64,
                        decoder_start_token_id=i("<|startoftranscript|>"), pad_token_id=i("<|endoftext|>"), bos_token_id=i("<|endoftext|>"), eos_token_id=i("<|endoftext|>"), suppress_tokens=None, begin_suppress_tokens=None)
    model = build(M, cfg)
    wav = ctx.audio(3.2)
    prompt = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    feats = fe(wav, sampling_rate=16000, return_tensors="pt").input_features
    cases = {"audio": {"input_features": feats, "decoder_input_ids": torch.tensor([[i(p) for p in prompt]])}}
    ctx.cases["audio"] = {"decoder_prompt": prompt}
    search(ctx, model, cases, specials(t), runner=seq2seq_case)
    # a 30 s / 128-bin front-end (large-v3 style) reduced to spot values, without shipping the 1.5 MB tensor
    full = WhisperFeatureExtractor(feature_size=128)(wav, sampling_rate=16000, return_tensors="pt").input_features[0]
    ctx.put("mel128_30s", columns=torch.tensor([0, 1, 2, 50, 100, 318, 319, 320, 321, 322, 400, 2999]), values=full[:, [0, 1, 2, 50, 100, 318, 319, 320, 321, 322, 400, 2999]], mean=full.mean().view(1))
    speech_finish(ctx, M, model, cases, t)


@family("moonshine")
def _(ctx):
    """Moonshine: raw-waveform conv stem, partial interleaved rope, SwiGLU decoder, bias-free LayerNorms, tied head."""
    from transformers import MoonshineConfig, MoonshineForConditionalGeneration as M, Wav2Vec2FeatureExtractor
    tk = sentencepiece_bpe("llama2", ["<unk>", "<s>", "</s>"])
    t = wrap_tok(ctx, tk, bos="<s>", eos="</s>", unk="<unk>", pad="</s>")
    fe = Wav2Vec2FeatureExtractor(feature_size=1, sampling_rate=16000, padding_value=0.0, do_normalize=False, return_attention_mask=True)
    fe.save_pretrained(ctx.dir)
    cfg = MoonshineConfig(vocab_size=len(t), hidden_size=72, intermediate_size=96, encoder_num_hidden_layers=2, decoder_num_hidden_layers=2, encoder_num_attention_heads=4, decoder_num_attention_heads=4,
                          pad_head_dim_to_multiple_of=8, max_position_embeddings=194, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, pad_token_id=2,
                          rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.9))
    model = build(M, cfg)
    wav = ctx.audio(1.55)
    x = fe(wav, sampling_rate=16000, return_tensors="pt").input_values
    cases = {"audio": {"input_values": x, "decoder_input_ids": torch.tensor([[1]])},
             "audio_prefix": {"input_values": x, "decoder_input_ids": torch.tensor([[1] + t("hello world", add_special_tokens=False)["input_ids"]])}}
    search(ctx, model, cases, specials(t), runner=seq2seq_case, emb_std=0.3, res_gain=2.2)
    speech_finish(ctx, M, model, cases, t)
    for c in cases:                                          # equals input.wav / 32768 (do_normalize is false)
        slim(ctx, c, ("input_values",), "int16 samples of input.wav / 32768")
    slim(ctx, "audio_prefix", ("encoder_hidden",), "as in `audio`")


# ---------------------------------------------------------------- encoders


ENC_TEXTS = ["What is in this picture?", "A local model answers questions about images, sounds and text on your own machine.", "Numbers 1 2 3 and punctuation, please."]
ENC_PAIR = ["The quick brown fox jumps.", "It runs away from the river."]


# ---------------------------------------------------------------- vision


@torch.no_grad()
def dual_encoder(ctx, cls, model, ip, pil_cls, t, tok_kw, texts):
    randomize(model, ctx.seed, ctx.dtype, emb_std=0.6)
    ip.save_pretrained(ctx.dir)
    ims = [ctx.image(w=120, h=90), ctx.image("input2.png", w=70, h=100, phase=1)]
    enc = t(texts, return_tensors="pt", **tok_kw)
    enc = {k: v for k, v in enc.items() if k in ("input_ids", "attention_mask")}
    pix = ip(images=ims, return_tensors="pt")["pixel_values"]
    inp = {**enc, "pixel_values": pix}
    if ctx.name.startswith("siglip"):
        inp.pop("attention_mask", None)
    o = model(**inp)
    ctx.put("pair", **inp, image_embeds=o.image_embeds, text_embeds=o.text_embeds, logits_per_image=o.logits_per_image,
            vision_last_hidden=o.vision_model_output.last_hidden_state, text_last_hidden=o.text_model_output.last_hidden_state, vision_pooled=o.vision_model_output.pooler_output)
    ctx.cases["pair"] = {"texts": texts, "images": ["input.png", "input2.png"], "tokenizer_args": tok_kw}
    ctx.stats["pair"] = {"logits_per_image_std": float(o.logits_per_image.std()), "vision_hidden_std": float(o.vision_model_output.last_hidden_state.std())}
    pil_variant(ctx, "pair", pil_cls, ip, ims)
    tok_samples(ctx, t)
    save_model(ctx, model)
    check_reload(ctx, cls, model, inp, "logits_per_image")
    sensitivity(ctx, model, {"pair": inp}, run=lambda i: torch.cat([(r := model(**i)).image_embeds.flatten(), r.text_embeds.flatten(), r.logits_per_image.flatten()]))


@family("clip", "f32")
def _(ctx):
    """CLIP dual encoder: quick_gelu, pre-LN with pre_layrnorm, EOS-position text pooling, bicubic resize + centre crop."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as P
    t = wrap_tok(ctx, clip(), bos="<|startoftext|>", eos="<|endoftext|>", unk="<|endoftext|>", pad="<|endoftext|>", max_len=32)
    b, e = t.bos_token_id, t.eos_token_id
    cfg = CLIPConfig(text_config=dict(vocab_size=len(t), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32, bos_token_id=b, eos_token_id=e, pad_token_id=e),
                     vision_config=dict(hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, image_size=48, patch_size=12), projection_dim=40)
    ip = CLIPImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})
    dual_encoder(ctx, CLIPModel, build(CLIPModel, cfg), ip, P, t, dict(padding="max_length", max_length=32, truncation=True), ENC_TEXTS)


@family("siglip", "f32")
def _(ctx):
    """SigLIP dual encoder: attention-pooling head on the image side, last-token pooling on text padded to max_length, no attention mask."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil as P
    t = wrap_tok(ctx, t5_unigram(), eos="</s>", unk="<unk>", pad="</s>", max_len=64)
    cfg = SiglipConfig(text_config=dict(vocab_size=len(t), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32, projection_size=64, bos_token_id=None, eos_token_id=1, pad_token_id=1),
                       vision_config=dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, image_size=48, patch_size=12))
    ip = SiglipImageProcessor(size={"height": 48, "width": 48})
    dual_encoder(ctx, SiglipModel, build(SiglipModel, cfg), ip, P, t, dict(padding="max_length", max_length=32, truncation=True), ENC_TEXTS)


# ---------------------------------------------------------------- diffusion


# ---------------------------------------------------------------- driver
def write_out(ctx):
    save_file(ctx.golden, ctx.dir / "golden.safetensors")
    meta = {"family": ctx.name, "seed": ctx.seed, "storage_dtype": str(ctx.dtype).split(".")[-1], "compute": "float32, eager attention, CPU",
            "versions": {m.__name__: m.__version__ for m in (torch, torchvision, transformers, tokenizers, PIL, np)}, "greedy": "argmax, EOS ignored, 16 steps",
            "cases": ctx.cases, "stats": ctx.stats, "notes": ctx.notes,
            "tensors": {k: [str(v.dtype).split(".")[-1], list(v.shape)] for k, v in sorted(ctx.golden.items())}}
    (ctx.dir / "golden.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False, default=str) + "\n")
    total = sum(f.stat().st_size for f in ctx.dir.rglob("*") if f.is_file())
    gold = (ctx.dir / "golden.safetensors").stat().st_size
    return total, gold


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", nargs="?")
    ap.add_argument("family", nargs="*")
    ap.add_argument("--seed", type=int, default=7)
    ap.add_argument("--dtype", choices=["auto", "bf16", "f32"], default="auto")
    ap.add_argument("--list", action="store_true")
    a = ap.parse_args()
    if a.list or not a.out:
        print("\n".join(FAMILIES)); return 0
    names = list(FAMILIES) if a.family in ([], ["all"]) else a.family
    bad = []
    for name in names:
        fn, dt = FAMILIES[name]
        dt = dt if a.dtype == "auto" else a.dtype
        ctx = Ctx(a.out, name, a.seed, torch.bfloat16 if dt == "bf16" else torch.float32)
        try:
            fn(ctx)
            total, gold = write_out(ctx)
            print(f"OK   {name:16s} total {total/1024:8.0f} KiB  golden {gold/1024:7.0f} KiB  tries {ctx.stats.get('tries', '-')}  notes {len(ctx.notes)}", flush=True)
            for n in ctx.notes:
                print("     note:", n)
        except Exception as e:
            import traceback
            bad.append(name); traceback.print_exc(); print(f"FAIL {name}: {e}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
