#!/usr/bin/env python3
"""Speech beside others, on this machine's CPU, with the same threads: firelight transcribe, faster-whisper, whisper.cpp; log-mels beside transformers.

    scripts/bench_speech.py FIRELIGHT WHISPER_CT2_FOLDER CLIP.wav [--tiny TINY.EN_FOLDER] [--threads 2] [--repeat 3] [--ggml MODEL.bin]
        [--commands PHRASES.json --said COMMAND.wav …]

FIRELIGHT is the release build of the program. Of each, the model is loaded, then the clip is transcribed greedily with timestamps; the best of --repeat
runs counts. What is not installed (faster_whisper, pywhispercpp with --ggml, transformers) is left out and said.
"""
import argparse
import json
import re
import subprocess
import tempfile
import time
import wave
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


def live(args, clip):
    """The clip played at the speed of time: from the end of the pause after an utterance to its text, and from the last word on; what the whole window says."""
    def heard(*more):
        command = [args.firelight, "listen", str(clip), "--json", "--model", args.tiny, "--device", "cpu", "--threads", str(args.threads), "--pause", str(PAUSE), *more]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return [e for e in map(json.loads, lines) if e.get("event") == "final"]

    runs = [heard() for _ in range(args.repeat)]
    for same, whole in zip(zip(*runs), heard("--no-wait", "--whole-window")):
        e, late = same[0], max(f["behind_ms"] for f in same)
        work = sorted(f["work_ms"] for f in same)[len(same) // 2]
        equal = "the same text" if e["text"] == whole["text"] else f"not {whole['text'][:80]}"
        print(f"{e['end'] - e['start']:.1f} s said: final text {late - PAUSE:.0f} ms after the pause, {late:.0f} ms after the last word at worst; {work:.0f} ms of work, {whole['work_ms']:.0f} in the whole window, {equal}: {e['text'][:80]}")


def commands(args):
    """Recordings of a command each (16 kHz, mono, 16 bits), played at the speed of time with 2 s between them: from the end of the speech to the action.

    Speech ends with the last 10 ms within 35 dB of the recording's loudest 10 ms, whatever the program takes for its end."""
    import numpy as np

    rate, step = 16_000, 160
    parts, ends, at = [np.zeros(rate, np.float32)], [], rate
    for clip in args.said:
        with wave.open(str(clip)) as f:
            assert (f.getframerate(), f.getnchannels(), f.getsampwidth()) == (rate, 1, 2), f"{clip}: 16 kHz, mono, 16 bits"
            x = np.frombuffer(f.readframes(f.getnframes()), np.int16).astype(np.float32)
        size = np.sqrt((x[:len(x) // step * step].reshape(-1, step) ** 2).mean(1))
        loud = np.flatnonzero(size > size.max() * 10 ** (-35 / 20))
        ends.append(((at + loud[0] * step) / rate, (at + (loud[-1] + 1) * step) / rate))
        parts += [x, np.zeros(2 * rate, np.float32)]
        at += len(x) + 2 * rate
    with tempfile.TemporaryDirectory() as d:
        path = Path(d) / "said.wav"
        sound = np.concatenate(parts) + np.random.default_rng(1).standard_normal(at) * 20
        with wave.open(str(path), "wb") as f:
            f.setnchannels(1), f.setsampwidth(2), f.setframerate(rate), f.writeframes(sound.clip(-32768, 32767).astype(np.int16).tobytes())
        command = [args.firelight, "listen", str(path), "--json", "--model", args.tiny, "--device", "cpu", "--threads", str(args.threads), "--commands", args.commands]
        told = [json.loads(line) for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()]
    late = []
    for i, (begin, end) in enumerate(ends):
        after = ends[i + 1][0] if i + 1 < len(ends) else float("inf")
        finals = [(e, j) for j, e in enumerate(told) if e["event"] == "final" and begin < e["end"] < after]
        acted = [e for e, j in finals if told[j + 1:j + 2] and told[j + 1]["event"] == "action"]
        for e in acted[:1]:
            late.append(((e["end"] - end) * 1e3 + e["behind_ms"], e["work_ms"]))
        said = "; ".join(e["text"] for e, _ in finals)
        print(f"{end - begin:.1f} s: {f'{late[-1][0]:.0f} ms after the last word' if acted else 'no action'}: {said}")
    late.sort()
    if late:
        print(f"{len(late)} of {len(ends)} commands: median {late[len(late) // 2][0]:.0f} ms, at worst {late[-1][0]:.0f}, {sum(l > 300 for l, _ in late)} beyond 300; work {sorted(w for _, w in late)[len(late) // 2]:.0f} ms")


PAUSE = 500


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("firelight")
    ap.add_argument("model")
    ap.add_argument("clip", type=Path)
    ap.add_argument("--tiny")
    ap.add_argument("--ggml")
    ap.add_argument("--live", type=Path, nargs="*", default=[], help="more clips to be heard live")
    ap.add_argument("--commands", help="a list of phrases")
    ap.add_argument("--said", type=Path, nargs="*", default=[], help="recordings of one of them each")
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
        # What is said in three seconds, and all of it.
        with tempfile.TemporaryDirectory() as d:
            short = Path(d) / "short.wav"
            with wave.open(str(args.clip)) as f, wave.open(str(short), "wb") as g:
                g.setparams(f.getparams()), g.writeframes(f.readframes(3 * f.getframerate())), g.writeframes(bytes(2 * f.getframerate() * f.getnchannels() * f.getsampwidth()))
            live(args, short)
        for clip in [args.clip, *args.live]:
            live(args, clip)
        if args.commands and args.said:
            commands(args)
    mels(args)


def mels(args):
    """Log-mels of windows of 30 s, in turn, with one thread and with --threads: the best and the median of each."""
    try:
        import numpy as np
        import torch
        from transformers import WhisperFeatureExtractor
    except ImportError as e:
        return print("left out:", e)
    front = WhisperFeatureExtractor(feature_size=80)
    x = np.random.default_rng(1).standard_normal(30 * 16000).astype(np.float32) * 0.1
    ways = {"torch": lambda: front._torch_extract_fbank_features(x[None]), "numpy": lambda: front._np_extract_fbank_features(x[None], "cpu")}
    try:
        import whisper
        clip = torch.from_numpy(x)
        ways["openai-whisper"] = lambda: whisper.log_mel_spectrogram(clip)
    except ImportError as e:
        print("left out:", e)
    with tempfile.TemporaryDirectory() as d:
        # Ten windows, as the program counts them: the front end alone.
        path = Path(d) / "ten.wav"
        with wave.open(str(path), "wb") as f:
            f.setnchannels(1), f.setsampwidth(2), f.setframerate(16000), f.writeframes((np.tile(x, 10) * 20000).clip(-32768, 32767).astype(np.int16).tobytes())
        for threads in sorted({1, args.threads}):
            torch.set_num_threads(threads)
            command = [args.firelight, "features", str(path), "--preset", "whisper80", "--threads", str(threads), "--out", str(Path(d) / "o")]
            mine, theirs = [], {name: [] for name in ways}
            for _ in range(10):
                said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
                mine.append(float(re.search(r"of sound in ([\d.]+) ms", said).group(1)) / 10)
                for name, run in ways.items():
                    run()
                    for _ in range(1 if name == "numpy" else 5):
                        start = time.perf_counter()
                        run()
                        theirs[name].append((time.perf_counter() - start) * 1e3)
            middle = lambda v: sorted(v)[len(v) // 2]
            print(f"log-mel of 30 s, {threads} threads: firelight {min(mine):.2f} ms (median {middle(mine):.2f})")
            for name, v in theirs.items():
                print(f"    {name} {min(v):.2f} ms (median {middle(v):.2f}): {min(v) / min(mine):.1f}x ({middle(v) / middle(mine):.1f}x)")


if __name__ == "__main__":
    main()
