#!/usr/bin/env python3
"""Speech beside others, on this machine's CPU, with the same threads: firelight transcribe, faster-whisper, whisper.cpp; log-mels beside transformers.

    scripts/bench_speech.py FIRELIGHT WHISPER_CT2_FOLDER CLIP.wav [--tiny TINY.EN_FOLDER] [--threads 2] [--repeat 3] [--ggml MODEL.bin]
        [--moonshine] [--commands PHRASES.json --said COMMAND.wav …] [--rounds 9]
    scripts/bench_speech.py --mels [--threads 2] [--rounds 9]

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

ROOT = Path(__file__).resolve().parent.parent


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


def live(args, clip, model, pause=500, *how):
    """The clip played at the speed of time: from the end of the pause after an utterance to its text, and from the last word on; what the whole window says."""
    def heard(*more):
        command = [args.firelight, "listen", str(clip), "--json", "--model", str(model), "--device", "cpu", "--threads", str(args.threads), "--pause", str(pause), *how, *more]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return [e for e in map(json.loads, lines) if e.get("event") == "final"]

    runs = [heard() for _ in range(args.repeat)]
    for same, whole in zip(zip(*runs), heard("--no-wait", "--whole-window")):
        e, late = same[0], max(f["behind_ms"] for f in same)
        work = sorted(f["work_ms"] for f in same)[len(same) // 2]
        equal = "the same text" if e["text"] == whole["text"] else f"not {whole['text'][:80]}"
        print(f"{e['end'] - e['start']:.1f} s said: final text {max(late - pause, 0):.0f} ms after the pause, {late:.0f} ms after the last word at worst; {work:.0f} ms of work, {whole['work_ms']:.0f} in the whole window, {equal}: {e['text'][:80]}")


def moonshine(folder):
    """A checkpoint of the sizes of Moonshine tiny (27 M parameters) with random weights and made-up words: what it says is nonsense that never ends by
    itself, so its context ends a text after 12 tokens, about what a command of 3 s has."""
    import torch
    from tokenizers import Tokenizer, decoders, models
    from transformers import MoonshineConfig, MoonshineForConditionalGeneration, PreTrainedTokenizerFast

    config = MoonshineConfig(pad_head_dim_to_multiple_of=8, max_position_embeddings=12)
    words = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>"] + [f"\u2581w{i}" for i in range(config.vocab_size - 3)])}
    made = Tokenizer(models.BPE(words, [], unk_token="<unk>"))
    made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(7)
    MoonshineForConditionalGeneration(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "sampling_rate": 16000, "do_normalize": false}')


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


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("firelight", nargs="?")
    ap.add_argument("model", nargs="?")
    ap.add_argument("clip", type=Path, nargs="?")
    ap.add_argument("--tiny")
    ap.add_argument("--ggml")
    ap.add_argument("--live", type=Path, nargs="*", default=[], help="more WAV files of 16 bits to be heard live")
    ap.add_argument("--moonshine", action="store_true", help="hear them live with a model of Moonshine tiny's sizes, too")
    ap.add_argument("--commands", help="a list of phrases")
    ap.add_argument("--said", type=Path, nargs="*", default=[], help="recordings of one of them each")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--repeat", type=int, default=3)
    ap.add_argument("--mels", action="store_true", help="log-mels alone")
    ap.add_argument("--rounds", type=int, default=9, help="of log-mels")
    args = ap.parse_args()
    if not args.mels:
        if not args.clip:
            ap.error("FIRELIGHT, a Whisper model and a clip are needed, or --mels")
        transcripts(args)
        hear(args)
    mels(args)


def paused(clip, path, seconds=None):
    """A WAV file, or the first seconds of it, with 2 s of silence after it: an utterance that ends in a pause."""
    with wave.open(str(clip)) as f, wave.open(str(path), "wb") as g:
        g.setparams(f.getparams())
        g.writeframes(f.readframes(seconds * f.getframerate() if seconds else f.getnframes()))
        g.writeframes(bytes(2 * f.getframerate() * f.getnchannels() * f.getsampwidth()))
    return path


def hear(args):
    """Clips and commands, live."""
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        # What is said in three seconds, and all of it.
        clips = [paused(args.clip, d / "0.wav", 3), *(paused(clip, d / f"{i}.wav") for i, clip in enumerate([args.clip, *args.live], 1))]
        if args.tiny:
            for clip in clips:
                live(args, clip, args.tiny)
            if args.commands and args.said:
                commands(args)
        if args.moonshine:
            try:
                moonshine(d / "moonshine")
                print("Moonshine tiny's sizes, random weights; a pause of 0.2 s and no partial texts, as with --commands:")
                for clip in clips:
                    live(args, clip, d / "moonshine", 200, "--partial", "0")
            except ImportError as e:
                print("left out:", e)


def transcripts(args):
    """A clip, by whoever is there."""
    rows = []
    for dtype in ("f32", "q8_0"):
        rows.append((f"firelight {dtype}", *ours(args, dtype, args.clip)))
    try:
        from faster_whisper import WhisperModel
        for kind in ("float32", "int8"):
            model = WhisperModel(args.model, device="cpu", compute_type=kind, cpu_threads=args.threads)
            run = lambda: " ".join(s.text.strip() for s in model.transcribe(str(args.clip), beam_size=1, temperature=0, condition_on_previous_text=True)[0])
            rows.append((f"faster-whisper {kind}", *best(args.repeat, run)))
    except (ImportError, RuntimeError) as e:  # it needs a vocabulary file of its own in the folder
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


def mels(args):
    """Log-mels of 30 s, Whisper's 80 bands, in turn with one thread and with --threads: medians of the times of --rounds rounds, and of their ratios.

    Ours is `Whisper::window_of`, repeated within one process (crates/audio/benches/speed.rs); of transformers both the whole call of its extractor
    and the function within it that computes, alone."""
    try:
        import numpy as np
        import torch
        from transformers import WhisperFeatureExtractor
    except ImportError as e:
        return print("left out:", e)
    bench = ["cargo", "bench", "-q", "-p", "firelight-audio", "--bench", "speed"]
    subprocess.run([*bench, "--no-run"], cwd=ROOT, check=True)
    front = WhisperFeatureExtractor(feature_size=80)
    x = np.random.default_rng(1).standard_normal(30 * 16000).astype(np.float32) * 0.1
    ways = {
        "transformers, torch": lambda: front._torch_extract_fbank_features(x[None]),
        "transformers, torch, the whole call": lambda: front(x, sampling_rate=16000, return_tensors="np"),
        "transformers, numpy": lambda: front._np_extract_fbank_features(x[None], "cpu"),
    }
    try:
        import whisper
        clip = torch.from_numpy(x)
        ways["OpenAI's program"] = lambda: whisper.log_mel_spectrogram(clip)
    except ImportError as e:
        print("left out:", e)
    middle = lambda v: sorted(v)[len(v) // 2]
    with tempfile.TemporaryDirectory() as d:
        sound = Path(d) / "noise.f32"
        sound.write_bytes(x.tobytes())
        for threads in sorted({1, args.threads}):
            torch.set_num_threads(threads)
            command = [*bench, "--", str(sound), "--threads", str(threads), "--repeat", "40"]
            mine, best, theirs = [], [], {name: [] for name in ways}
            for _ in range(args.rounds):
                said = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
                mine.append(said["median"]), best.append(said["best"])
                for name, run in ways.items():
                    run()
                    times = []
                    for _ in range(3 if name.endswith("numpy") else 20):
                        start = time.perf_counter()
                        run()
                        times.append((time.perf_counter() - start) * 1e3)
                    theirs[name].append((middle(times), min(times)))
            print(f"log-mel of 30 s, {threads} threads, {args.rounds} rounds: Firelight {middle(mine):.2f} ms (best {min(best):.2f})")
            for name, v in theirs.items():
                times, bests = zip(*v)
                ratios = [t / m for t, m in zip(times, mine)]
                print(f"    {name}: {middle(times):.2f} ms (best {min(bests):.2f}), {middle(ratios):.2f} times ours ({min(ratios):.2f} to {max(ratios):.2f}; by the best {min(bests) / min(best):.2f})")


if __name__ == "__main__":
    main()
