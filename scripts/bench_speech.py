#!/usr/bin/env python3
"""Speech beside others, on this machine's CPU, with the same threads: firelight transcribe, faster-whisper, whisper.cpp; log-mels beside transformers.

    scripts/bench_speech.py FIRELIGHT WHISPER_CT2_FOLDER CLIP.wav [--tiny TINY.EN_FOLDER] [--threads 2] [--repeat 3] [--ggml MODEL.bin]

FIRELIGHT is the release build of the program. Of each, the model is loaded, then the clip is transcribed greedily with timestamps; the best of --repeat
runs counts. What is not installed (faster_whisper, pywhispercpp with --ggml, transformers) is left out and said.
"""
import argparse
import json
import re
import subprocess
import tempfile
import time
from pathlib import Path


def best(repeat, run):
    times, said = [], None
    for _ in range(repeat):
        start = time.perf_counter()
        said = run()
        times.append(time.perf_counter() - start)
    return min(times), said


def ours(args, dtype, audio):
    """Seconds as the program counts them, without loading: what its last line says."""
    took, text = [], ""
    for _ in range(args.repeat):
        more = ["--dtype", dtype] if dtype else []
        command = [args.firelight, "transcribe", str(audio), "--model", args.model, "--device", "cpu", "--threads", str(args.threads), "--temperature", "0", *more]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        text = " ".join(ran.stdout.split())
        took.append(float(re.search(r"of sound in ([\d.]+) s", ran.stderr).group(1)))
    return min(took), text


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("firelight")
    ap.add_argument("model")
    ap.add_argument("clip", type=Path)
    ap.add_argument("--tiny")
    ap.add_argument("--ggml")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--repeat", type=int, default=3)
    args = ap.parse_args()
    rows = []
    for dtype in ("f32", "q8_0"):
        rows.append((f"firelight {dtype}", *ours(args, dtype, args.clip)))
    try:
        from faster_whisper import WhisperModel
        for kind in ("float32", "int8"):
            model = WhisperModel(args.model, device="cpu", compute_type=kind, cpu_threads=args.threads)
            run = lambda: " ".join(s.text.strip() for s in model.transcribe(str(args.clip), beam_size=1, temperature=0, condition_on_previous_text=True)[0])
            rows.append((f"faster-whisper {kind}", *best(args.repeat, run)))
    except ImportError as e:
        print("left out:", e)
    if args.ggml:
        try:
            from pywhispercpp.model import Model
            model = Model(args.ggml, n_threads=args.threads, print_progress=False, print_realtime=False)
            run = lambda: " ".join(s.text.strip() for s in model.transcribe(str(args.clip)))
            rows.append(("whisper.cpp", *best(args.repeat, run)))
        except ImportError as e:
            print("left out:", e)
    for name, took, text in rows:
        print(f"{name:24} {took:7.2f} s   {text[:90]}")
    if args.tiny:
        command = [args.firelight, "listen", str(args.clip), "--no-wait", "--json", "--model", args.tiny, "--device", "cpu", "--threads", str(args.threads), "--partial", "0"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        for e in map(json.loads, lines):
            if e.get("event") == "final":
                print(f"final text after {e['work_ms']:.0f} ms for {e['end'] - e['start']:.1f} s: {e['text'][:80]}")
    try:
        import numpy as np
        import wave
        from transformers import WhisperFeatureExtractor
        front = WhisperFeatureExtractor(feature_size=80)
        x = np.random.default_rng(1).standard_normal(30 * 16000).astype(np.float32) * 0.1
        reference, _ = best(5, lambda: front(x, sampling_rate=16000, return_tensors="np"))
        with tempfile.TemporaryDirectory() as d:
            # Ten windows and one: the difference is nine, without the program's start.
            def written(n):
                path = Path(d) / f"{n}.wav"
                with wave.open(str(path), "wb") as f:
                    f.setnchannels(1), f.setsampwidth(2), f.setframerate(16000), f.writeframes((np.tile(x, n) * 20000).clip(-32768, 32767).astype(np.int16).tobytes())
                return path
            one, ten = written(1), written(10)
            run = lambda p: best(5, lambda: subprocess.run([args.firelight, "features", str(p), "--preset", "whisper80", "--out", str(Path(d) / "o")], capture_output=True, check=True))[0]
            mine = (run(ten) - run(one)) / 9
        print(f"log-mel of 30 s: firelight {mine * 1e3:.1f} ms (file included), transformers {reference * 1e3:.1f} ms, {reference / mine:.1f}x")
    except ImportError as e:
        print("left out:", e)


if __name__ == "__main__":
    main()
