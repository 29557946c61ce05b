#!/usr/bin/env python3
"""all-MiniLM-L6-v2 beside its reference and ONNX Runtime: the same vectors? how fast?

    pip install torch transformers onnx onnxruntime onnxscript numpy
    cargo build --release -p firelight-cli
    python scripts/bench_embed.py MODEL_FOLDER check [--device cpu|gpu]     vectors of 100 texts of all lengths
    python scripts/bench_embed.py MODEL_FOLDER speed [--threads 1,2]        sentences per second beside ONNX Runtime's CPU provider
    python scripts/bench_embed.py MODEL_FOLDER types [--dtypes q8,q4_1]     how far the similarities of 100 texts move under --dtype
    python scripts/bench_embed.py MODEL_FOLDER goldens OUT.json             what tests/real_embeddings.rs compares with

MODEL_FOLDER is what `firelight models fetch all-minilm-l6-v2` prints. The reference is transformers in f32 on the CPU, pooled as
sentence-transformers does (mean over the attended tokens, length 1, 256 tokens at most). For the speed the same weights are exported to ONNX and run
as a careful user would: texts sorted by length, batches of 32 and of 1 padded to their longest text (the faster of both counts), tokenised by
`tokenizers`. Both sides count tokenising; loading is left out. The runs alternate, and the median of their ratios is printed.
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = ROOT / "crates/runtime/tests/data/text.txt"
MAX_TOKENS, BATCH = 256, 32
EXTRA = ["a", "Hello!", "Le café est très bon, naïve Straße.", "東京 is a city.", "3.14 + 2.72 = 5.86", "don't, won't; can't?", "😀 emoji",
         "UPPER lower MiXeD", "tab\tand\nnew line", "http://example.org/a?b=c&d=e"]


def texts(n=100, seed=7):
    """Texts of 1 to 400 words, short ones more often."""
    words, rng = TEXT.read_text(encoding="utf-8").split(), random.Random(seed)
    lengths = [max(1, round(400 ** (i / (n - len(EXTRA) - 1)))) for i in range(n - len(EXTRA))]
    made = []
    for length in lengths:
        start = rng.randrange(len(words))
        made.append(" ".join((words * 2)[start:start + length]))
    made += EXTRA
    rng.shuffle(made)
    return made


def firelight(model, sentences, device="cpu", threads=None, dtype=None):
    command = [os.environ.get("FIRELIGHT", str(ROOT / "target/release/firelight")), "embed", "--model", str(model), "--json", "--device", device]
    if dtype:
        command += ["--dtype", dtype]
    if threads:
        command += ["--threads", str(threads)]
    run = subprocess.run(command + ["--", *sentences], capture_output=True, text=True)
    if run.returncode:
        sys.exit(run.stderr)
    out = json.loads(run.stdout)
    return [row["vector"] for row in out["embeddings"]], out["ms"] / 1e3


def reference(model, sentences):
    import torch
    from transformers import AutoModel, AutoTokenizer
    tok, net = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model, attn_implementation="eager").float().eval()
    rows = []
    with torch.no_grad():
        for text in sentences:
            batch = tok([text], truncation=True, max_length=MAX_TOKENS, padding=False, return_tensors="pt")
            hidden = net(**batch).last_hidden_state
            rows.append(torch.nn.functional.normalize(hidden.mean(1))[0].numpy())
    return rows


def check(model, device):
    import numpy as np
    sentences = texts()
    ours, _ = firelight(model, sentences, device)
    theirs = reference(model, sentences)
    diffs = [float(np.abs(np.array(a) - b).max()) for a, b in zip(ours, theirs)]
    cosines = [float(np.dot(np.array(a, dtype=np.float64), b.astype(np.float64))) for a, b in zip(ours, theirs)]
    words = sorted(len(s.split()) for s in sentences)
    print(f"{len(sentences)} texts of {words[0]} to {words[-1]} words on {device}: largest difference {max(diffs):.2e}, smallest cosine {min(cosines):.7f}")
    sys.exit(0 if max(diffs) <= 1e-5 and min(cosines) >= 0.99999 else 1)


def export(model, path):
    import torch
    from transformers import AutoModel
    net = AutoModel.from_pretrained(model, attn_implementation="eager").float().eval()

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, input_ids, attention_mask, token_type_ids):
            hidden = self.net(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))

    ids = torch.ones(2, 9, dtype=torch.long)
    axes = {n: {0: "b", 1: "t"} for n in ("input_ids", "attention_mask", "token_type_ids")}
    torch.onnx.export(Wrapped(), (ids, ids, ids * 0), str(path), input_names=list(axes), output_names=["embedding"], dynamic_axes=axes,
                      opset_version=17, dynamo=False)


class Onnx:
    """ONNX Runtime with the tokenizer, as a careful user would run it."""

    def __init__(self, model, onnx, threads):
        import onnxruntime
        from tokenizers import Tokenizer
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
        self.tok = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
        self.tok.enable_truncation(MAX_TOKENS)
        self.tok.no_padding()

    def run(self, sentences, batch):
        import numpy as np
        start = time.perf_counter()
        encoded = self.tok.encode_batch(sentences)
        order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].ids))
        rows = [None] * len(encoded)
        for at in range(0, len(order), batch):
            part = order[at:at + batch]
            longest = len(encoded[part[0]].ids)
            ids, mask = np.zeros((len(part), longest), np.int64), np.zeros((len(part), longest), np.int64)
            for r, i in enumerate(part):
                n = len(encoded[i].ids)
                ids[r, :n], mask[r, :n] = encoded[i].ids, 1
            out = self.session.run(None, {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})[0]
            for r, i in enumerate(part):
                rows[i] = out[r]
        return rows, time.perf_counter() - start


def speed(model, threads, repeats):
    import numpy as np
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "model.onnx"
        export(model, onnx)
        workloads = {"mixed lengths": texts(200, 3), "one sentence each": [t for t in texts(900, 5) if 5 <= len(t.split()) <= 25][:256]}
        for count in threads:
            os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(count)
            peer = Onnx(model, onnx, count)
            for name, sentences in workloads.items():
                peer.run(sentences[:64], BATCH)
                ratios, ours_all, theirs_all = [], [], []
                for _ in range(repeats):
                    vectors, ours = firelight(model, sentences, "cpu", count)
                    rows, by_32 = peer.run(sentences, BATCH)
                    _, by_1 = peer.run(sentences, 1)
                    theirs = min(by_32, by_1)
                    ratios.append(theirs / ours)
                    ours_all.append(len(sentences) / ours)
                    theirs_all.append(len(sentences) / theirs)
                worst = max(float(np.abs(np.array(a) - b).max()) for a, b in zip(vectors, rows))
                print(f"{count} thread(s), {len(sentences)} texts, {name}: firelight {statistics.median(ours_all):.1f}/s, ONNX Runtime "
                      f"{statistics.median(theirs_all):.1f}/s, median ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
                      f"largest difference {worst:.1e}", flush=True)


def types(model, dtypes):
    """The angle between two texts is what a quantised model is asked for: how far is it from that of the f32 weights?"""
    import numpy as np
    sentences = texts()
    pairs = np.triu_indices(len(sentences), 1)

    def similarities(dtype):
        vectors = np.array(firelight(model, sentences, dtype=dtype)[0], dtype=np.float64)
        return (vectors @ vectors.T)[pairs]

    plain = similarities(None)
    for dtype in dtypes:
        moved = np.abs(similarities(dtype) - plain)
        print(f"{dtype}: {len(plain)} similarities move by {moved.mean():.5f} on average, {moved.max():.4f} at most", flush=True)


def goldens(model, out):
    import torch
    import transformers
    chosen = [t for t in texts() if t in EXTRA[:6]] + sorted((t for t in texts() if t not in EXTRA), key=len)[10::26]
    rows = reference(model, chosen)
    value = dict(model="all-minilm-l6-v2", made_by="scripts/bench_embed.py", torch=torch.__version__, transformers=transformers.__version__,
                 cases=[dict(text=t, vector=[float(f"{v:.7f}") for v in row]) for t, row in zip(chosen, rows)])
    Path(out).write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")
    print(len(chosen), "texts to", out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("what", choices=["check", "speed", "types", "goldens"])
    parser.add_argument("out", nargs="?")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--dtypes", default="f16,q8,q5_1,q4_1,q4_0")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if args.what == "check":
        check(args.model, args.device)
    elif args.what == "speed":
        speed(args.model, [int(n) for n in args.threads.split(",")], args.repeats)
    elif args.what == "types":
        types(args.model, args.dtypes.split(","))
    else:
        goldens(args.model, args.out)


if __name__ == "__main__":
    main()
