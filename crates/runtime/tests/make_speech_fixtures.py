#!/usr/bin/env python3
"""Makes tests/data/whisper and tests/data/moonshine: tiny checkpoints that hear, and what the reference computes from a clip.

    pip install -r requirements.txt
    python make_speech_fixtures.py OUT [FAMILY ...] [--seed N]      without a family: all; the repository has seed 7

As make_fixtures.py, whose tokenizers and rounding it takes; beside the checkpoint lies the clip, input.wav (16 bits, made from the seed: tones and
noise, nobody's voice). Goldens: decoder_input_ids, encoder_hidden, logits (of all of the prompt), step_logits and greedy_ids (16 cached steps, no
rules of generation), Whisper's input_features.
"""
import argparse
import copy
import json
import math
import shutil
import sys
import wave
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from torch import nn
from transformers import (MoonshineConfig, MoonshineForConditionalGeneration, PreTrainedTokenizerFast, Wav2Vec2FeatureExtractor, WhisperConfig,
                          WhisperFeatureExtractor, WhisperForConditionalGeneration)

from make_fixtures import NEW_TOKENS, SAMPLES, bf16, byte_level_bpe, generator, hub_style, sentencepiece_bpe

RATE = 16000


def sound(seed, name, seconds):
    """int16: gliding harmonics, noise bursts, a gap."""
    rng = np.random.default_rng([seed, len(name)])
    t = np.arange(int(seconds * RATE)) / RATE
    f0 = 130 + 40 * np.sin(2 * np.pi * (0.7 * t + rng.random()))
    x = sum(np.sin(2 * np.pi * k * np.cumsum(f0) / RATE + rng.random()) / k for k in range(1, 14))
    x += 0.6 * rng.standard_normal(t.size) * (np.sin(2 * np.pi * 2.3 * t + rng.random()) > 0.5)
    x[int(0.5 * t.size):int(0.6 * t.size)] = 0
    return np.round(x / np.abs(x).max() * 25000).astype(np.int16)


def whisper():
    """1 s windows, 80 bands, 12 timestamps; every head has a part."""
    words = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|fr|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>",
             "<|nospeech|>", "<|notimestamps|>"] + [f"<|{i * 0.02:.2f}|>" for i in range(51)]
    tok = PreTrainedTokenizerFast(tokenizer_object=byte_level_bpe(words, None, 0), bos_token=words[0], eos_token=words[0], unk_token=words[0])
    i = tok.convert_tokens_to_ids
    cfg = WhisperConfig(vocab_size=len(tok), num_mel_bins=80, d_model=48, encoder_layers=2, decoder_layers=2, encoder_attention_heads=3,
                        decoder_attention_heads=4, encoder_ffn_dim=96, decoder_ffn_dim=80, max_source_positions=50, max_target_positions=64,
                        decoder_start_token_id=i(words[1]), pad_token_id=i(words[0]), bos_token_id=i(words[0]), eos_token_id=i(words[0]),
                        suppress_tokens=None, begin_suppress_tokens=None)
    prompt = [words[1], words[2], words[5], words[9]]
    front = WhisperFeatureExtractor(feature_size=80, chunk_length=1)
    return tok, WhisperForConditionalGeneration, cfg, front, 0.7, {"audio": ({"decoder_prompt": prompt}, [i(p) for p in prompt])}


def moonshine():
    """Another number of heads in each stack, grouped keys in the decoder, part of a head turned."""
    tok = PreTrainedTokenizerFast(tokenizer_object=sentencepiece_bpe(["<unk>", "<s>", "</s>"], "<s>", False), bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    cfg = MoonshineConfig(vocab_size=len(tok), hidden_size=48, intermediate_size=96, encoder_num_hidden_layers=2, decoder_num_hidden_layers=2,
                          encoder_num_attention_heads=3, decoder_num_attention_heads=4, decoder_num_key_value_heads=2, max_position_embeddings=194,
                          pad_head_dim_to_multiple_of=8, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, pad_token_id=2,
                          rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.68))
    front = Wav2Vec2FeatureExtractor(feature_size=1, sampling_rate=RATE, padding_value=0.0, do_normalize=False, return_attention_mask=True)
    words = tok("hello world", add_special_tokens=False)["input_ids"]
    return tok, MoonshineForConditionalGeneration, cfg, front, 1.1, {"audio": ({}, [1]), "audio_prefix": ({}, [1, *words])}


FAMILIES = {f.__name__: f for f in (whisper, moonshine)}


@torch.no_grad()
def randomize(model, seed, specials):
    seen = set()
    for path, module in model.named_modules():
        for name, p in module.named_parameters(recurse=False):
            if id(p) in seen:
                continue
            seen.add(id(p))
            x = torch.randn(p.shape, generator=generator(seed, f"{path}.{name}"))
            if "Norm" in type(module).__name__:
                x = x * 0.1 if name == "bias" else x * 0.25 + 1.0
            elif "Embedding" in type(module).__name__:
                x = x * 0.4
                if p.shape[0] > max(specials):
                    x[specials] *= 0.35
            elif p.dim() == 1:
                x = x * 0.2
            else:
                x = x * (1.8 / math.sqrt(p[0].numel()))
            p.copy_(bf16(x))
    model.tie_weights()
    return model.float().eval()


@torch.no_grad()
def run(model, given, prompt):
    dec = torch.tensor([prompt])
    out = model(**given, decoder_input_ids=dec, use_cache=False)
    enc = model.get_encoder()(**given)
    cache, ids, steps, cur = None, [], [], dec
    for _ in range(NEW_TOKENS):
        o = model(encoder_outputs=enc, decoder_input_ids=cur, past_key_values=cache, use_cache=True)
        cache = o.past_key_values
        steps.append(o.logits[0, -1].float())
        cur = steps[-1].argmax().view(1, 1)
        ids.append(int(cur))
    steps = torch.stack(steps)
    top = steps.topk(2, -1).values
    margin, distinct = float((top[:, 0] - top[:, 1]).min()), len(set(ids))
    return {"decoder_input_ids": dec[0], "encoder_hidden": enc.last_hidden_state[0], "logits": out.logits[0].float(), "step_logits": steps,
            "greedy_ids": torch.tensor(ids)}, margin, distinct


def make(out, name, seed):
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    tok, cls, cfg, front, seconds, cases = FAMILIES[name]()
    tok.save_pretrained(out)
    front.save_pretrained(out)
    samples = sound(seed, name, seconds)
    with wave.open(str(out / "input.wav"), "wb") as f:
        f.setnchannels(1), f.setsampwidth(2), f.setframerate(RATE), f.writeframes(samples.tobytes())
    given = dict(front(samples.astype(np.float32) / 32768, sampling_rate=RATE, return_tensors="pt"))
    given.pop("attention_mask", None)
    specials = sorted({i for i, t in tok.added_tokens_decoder.items() if t.special})
    model = cls._from_config(cfg, attn_implementation="eager")
    for tries in range(400):  # weights under which greedy decoding is far from a tie and says more than one thing
        randomize(model, seed + 1000 * tries, specials)
        results = {case: run(model, given, prompt) for case, (_, prompt) in cases.items()}
        if all(margin > 0.05 and distinct >= 6 for _, margin, distinct in results.values()):
            break
    else:
        sys.exit(f"{name}: no weights far from a tie")
    golden, said = {}, {}
    for case, (more, _) in cases.items():
        tensors = results[case][0]
        if case != "audio":
            del tensors["encoder_hidden"]
        golden |= {f"{case}.{k}": v.contiguous().clone() for k, v in tensors.items()}
        said[case] = {**more, "generated_text": tok.decode(tensors["greedy_ids"])}
    if "input_features" in given:
        golden["audio.input_features"] = given["input_features"].contiguous().clone()
    said["tokenizer"] = [{"text": s, "ids": tok(s)["input_ids"], "ids_no_special": tok(s, add_special_tokens=False)["input_ids"],
                          "decoded": tok.decode(tok(s)["input_ids"], skip_special_tokens=True)} for s in SAMPLES]
    store = copy.deepcopy(model).to(torch.bfloat16)
    store.config.dtype = torch.bfloat16
    store.save_pretrained(out)
    config = out / "config.json"
    config.write_text(json.dumps(hub_style(json.loads(config.read_text())), indent=2) + "\n")
    again = cls.from_pretrained(out, dtype=torch.float32, attn_implementation="eager").eval()
    off = float((run(again, given, cases["audio"][1])[0]["logits"] - results["audio"][0]["logits"]).abs().max())
    assert off <= 1e-5, f"{name}: the files alone do not reproduce the golden ({off})"
    save_file(golden, out / "golden.safetensors")
    (out / "golden.json").write_text(json.dumps({
        "family": name, "seed": seed, "storage_dtype": "bfloat16", "compute": "float32, eager attention, CPU",
        "versions": {m.__name__: m.__version__ for m in (torch, transformers, np)}, "greedy": f"argmax, EOS ignored, {NEW_TOKENS} steps", "cases": said,
        "tensors": {k: [str(v.dtype).split(".")[-1], list(v.shape)] for k, v in sorted(golden.items())},
    }, indent=1, ensure_ascii=False) + "\n")
    print(name, "tries", tries + 1, {c: (round(m, 3), d) for c, (_, m, d) in results.items()})


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", type=Path)
    ap.add_argument("family", nargs="*", choices=[[], *FAMILIES])
    ap.add_argument("--seed", type=int, default=7)
    args = ap.parse_args()
    for name in args.family or FAMILIES:
        make(args.out / name, name, args.seed)
