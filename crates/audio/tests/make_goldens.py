"""Makes tests/data from the reference implementations. Run it from this folder, with

    pip install torch==2.15.0 transformers==5.23.0 numpy soundfile av==18.1.0

The clip is ours (tones, sweeps, noise bursts and silence from a fixed seed), so no recording of anyone is kept here.
"""
import io
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import soundfile

DATA = Path(__file__).parent / "data"
RATE = 16000


def clip(seconds, rate=RATE, seed=7):
    """int16 mono: a sweep, harmonics with vibrato, noise bursts, a silent gap, a quiet tail."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    f0 = 140 + 15 * np.sin(2 * np.pi * 5 * t)
    voice = sum(np.sin(2 * np.pi * k * np.cumsum(f0) / rate) / k for k in range(1, 12))
    sweep = np.sin(2 * np.pi * (100 * t + (rate / 2 - 200) / (2 * seconds) * t**2))
    noise = rng.standard_normal(t.size) * (np.sin(2 * np.pi * 3 * t) > 0.7)
    x = 0.25 * voice + 0.2 * sweep + 0.15 * noise
    x[int(0.40 * t.size) : int(0.50 * t.size)] = 0
    x[int(0.85 * t.size) :] *= 0.002
    return np.clip(x / np.abs(x).max() * 30000, -32768, 32767).astype(np.int16)


def crc(a):
    return f"{zlib.crc32(np.ascontiguousarray(a, dtype=np.float32).tobytes()):08x}"


def exact_transform(fe, x):
    """The class's torch path with the Fourier transform and all that follows in f64: what its f32 transform rounds away."""
    import torch
    window = torch.hann_window(fe.n_fft).numpy()
    padded = np.pad(x, fe.n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, fe.n_fft)[:: fe.hop_length][:-1] * window
    power = np.abs(np.fft.rfft(frames.astype(np.float64))) ** 2
    logs = np.log10(np.maximum(fe.mel_filters.astype(np.float32).astype(np.float64).T @ power.T, 1e-10))
    return (np.maximum(logs, logs.max() - 8) + 4) / 4


def whisper_cases():
    import torch
    from transformers import WhisperFeatureExtractor
    torch.set_num_threads(1)
    x = clip(2)
    soundfile.write(DATA / "clip.wav", x, RATE, subtype="PCM_16")
    x = x.astype(np.float32) / 32768
    cases = [
        # name, mels, window in seconds, samples of the clip, padded to the window
        ("80 bands, 30 s", 80, 30, (0, 32000), True), ("128 bands, 30 s", 128, 30, (0, 32000), True), ("odd length", 80, 5, (1000, 13345), True),
        ("full window", 80, 2, (0, 32000), True), ("all but the last 100 samples", 80, 2, (0, 31900), True), ("all but the last 300 samples", 128, 2, (0, 31700), True),
        ("one sample", 80, 2, (5000, 5001), True), ("150 samples", 80, 2, (5000, 5150), True), ("silence", 80, 2, (14000, 15000), True),
        ("whole", 80, 30, (0, 32000), False), ("whole, odd", 128, 30, (700, 7031), False), ("whole, shortest", 80, 30, (700, 901), False),
    ]
    out, blob = [], b""   # per case the columns of the reference, then those with an exact transform
    for name, mels, window, (a, b), padded in cases:
        fe = WhisperFeatureExtractor(feature_size=mels, chunk_length=window)
        kw = {} if padded else {"padding": False, "truncation": False}
        f = fe(x[a:b], sampling_rate=RATE, return_tensors="np", **kw)["input_features"][0].astype(np.float32)
        exact = exact_transform(fe, np.pad(x[a:b], (0, window * RATE - (b - a))) if padded else x[a:b])
        real = -(-(b - a) // 160) + 2
        columns = sorted({int(c) for c in np.linspace(0, min(real, f.shape[1]) - 1, 12)} | {max(f.shape[1] - 2, 0), f.shape[1] - 1})
        out.append({"name": name, "mels": mels, "window": window, "samples": [a, b], "padded": padded, "shape": list(f.shape), "columns": columns, "at": len(blob) // 4,
                    "mean": float(f.mean(dtype=np.float64)), "rounding": float(np.abs(f - exact).max())})
        for path in (f, exact.astype(np.float32)):
            blob += np.ascontiguousarray(path[:, columns]).tobytes()
    (DATA / "whisper.json").write_text("[\n" + ",\n".join(map(json.dumps, out)) + "\n]\n")
    (DATA / "whisper.f32").write_bytes(blob)
    fb = WhisperFeatureExtractor(feature_size=80).mel_filters.T.astype(np.float32), WhisperFeatureExtractor(feature_size=128).mel_filters.T.astype(np.float32)
    (DATA / "mel.json").write_text(json.dumps([{"mels": f.shape[0], "sums": [float(v) for v in f.sum(1, dtype=np.float64)]} for f in fb]) + "\n")
    return [(o["name"], o["rounding"]) for o in out]


def decode_cases():
    folder = DATA / "decode"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    lines = ["# file rate channels samples crc32(mono f32)   lossy: 0 and the samples lie beside it as .f32"]

    def put(name, data, mono, rate, channels, exact=True):
        (folder / name).write_bytes(data)
        mono = np.asarray(mono, np.float32)
        if not exact:
            (folder / f"{name}.f32").write_bytes(mono.tobytes())
        lines.append(f"{name} {rate} {channels} {mono.size} {crc(mono) if exact else 0}")

    def mean(frames):
        frames = np.asarray(frames, np.float32).reshape(len(frames), -1)
        total = frames[:, 0].copy()
        for c in range(1, frames.shape[1]):
            total += frames[:, c]
        return total / np.float32(frames.shape[1]) if frames.shape[1] > 1 else total

    def via_sndfile(name, x, rate, kind, subtype, exact=True, **kw):
        out = io.BytesIO()
        soundfile.write(out, x, rate, format=kind, subtype=subtype, **kw)
        back, _ = soundfile.read(io.BytesIO(out.getvalue()), dtype="float32", always_2d=True)
        put(name, out.getvalue(), mean(back), rate, back.shape[1], exact)

    x = clip(0.05, seed=3).astype(np.float64) / 32768
    stereo = np.stack([x, np.roll(x, 11) * 0.5], 1)
    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"):
        via_sndfile(f"{subtype.lower()}.wav", x, RATE, "WAV", subtype)
    via_sndfile("stereo.wav", stereo, 44100, "WAV", "PCM_16")
    via_sndfile("extensible_7.wav", np.stack([np.roll(x, 5 * i) * 0.8**i for i in range(7)], 1)[:300], 48000, "WAVEX", "PCM_24")
    via_sndfile("ulaw_8k.wav", x, 8000, "WAV", "ULAW")
    via_sndfile("loud.wav", x * 3, RATE, "WAV", "FLOAT")
    via_sndfile("mono.flac", x, RATE, "FLAC", "PCM_16")
    via_sndfile("stereo_24.flac", stereo, 44100, "FLAC", "PCM_24")
    long = clip(0.4, rate=44100, seed=4).astype(np.float64) / 32768
    via_sndfile("stereo.mp3", np.stack([long, long[::-1]], 1)[:4000], 44100, "MP3", "MPEG_LAYER_III", exact=False)
    via_sndfile("mono.ogg", long[:4000], 44100, "OGG", "VORBIS", exact=False)
    # Lengths left open, as recorders that write to a pipe leave them.
    wav = (folder / "pcm_16.wav").read_bytes()
    at = wav.index(b"data") + 4
    for name, riff, data in (("open_ends.wav", 0xFFFFFFFF, 0xFFFFFFFF), ("open_zeros.wav", 0, 0)):
        put(name, wav[:4] + struct.pack("<I", riff) + wav[8:at] + struct.pack("<I", data) + wav[at + 4 :], x_of(wav), RATE, 1)
    # Chunks before and after the samples, one of odd length.
    extra = b"junk" + struct.pack("<I", 3) + b"abc\0"
    body = wav[12 : 12 + 24] + extra + wav[at - 4 :] + b"LIST" + struct.pack("<I", 4) + b"INFO"
    put("chunks.wav", b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body, x_of(wav), RATE, 1)
    (DATA / "decode.txt").write_text("\n".join(lines) + "\n")
    return len(lines) - 1


def packed_cases():
    """Containers that libsndfile does not read: encoded and decoded by ffmpeg (PyAV). Run it after decode."""
    import av
    folder = DATA / "decode"
    long = clip(0.4, rate=48000, seed=5)[:9000]

    def encode(name, fmt, codec, rate, channels, **options):
        x = long if channels == 1 else np.stack([long, long[::-1]], 1).reshape(-1)
        out = io.BytesIO()
        with av.open(out, "w", format=fmt) as f:
            stream = f.add_stream(codec, rate=rate, layout="mono" if channels == 1 else "stereo", options=options)
            stream.bit_rate = 48000
            frame = av.AudioFrame.from_ndarray(x[None, :], format="s16", layout="mono" if channels == 1 else "stereo")
            frame.sample_rate = rate
            for packet in stream.encode(frame):
                f.mux(packet)
            for packet in stream.encode(None):
                f.mux(packet)
        data = out.getvalue()
        with av.open(io.BytesIO(data)) as f:
            planes = np.concatenate([x.to_ndarray() for x in f.decode(audio=0)], 1)
        return put(name, data, planes, rate, channels)

    def put(name, data, planes, rate, channels):
        mono = planes.astype(np.float32).mean(0, dtype=np.float32)
        (folder / name).write_bytes(data)
        (folder / f"{name}.f32").write_bytes(mono.tobytes())
        return f"{name} {rate} {channels} {mono.size} 0"

    def opus(name, channels):  # libopus, through libsndfile, which cuts the end as the last page says
        x = long // 2  # what the codec makes of it stays below full scale, where the decoder compared with it clips
        x = x if channels == 1 else np.stack([x, x[::-1]], 1)
        out = io.BytesIO()
        soundfile.write(out, x, 48000, format="OGG", subtype="OPUS")
        planes = soundfile.read(io.BytesIO(out.getvalue()), dtype="float32", always_2d=True)[0].T
        return put(name, out.getvalue(), planes, 48000, channels)

    made = [
        opus("mono.opus", 1),
        opus("stereo.opus", 2),
        encode("mono.webm", "webm", "libopus", 48000, 1),
        encode("mono.m4a", "mp4", "aac", 48000, 1),
        encode("stereo.aac", "adts", "aac", 48000, 2),
    ]
    names = [line.split()[0] for line in made]
    kept = [line for line in (DATA / "decode.txt").read_text().splitlines() if line.split()[0] not in names]
    (DATA / "decode.txt").write_text("\n".join(kept + made) + "\n")
    return made


def logmel_cases():
    """Gemma 4's front end, and Kaldi's filter bank as SeamlessM4T's extractor calls it. With the transform in f64 beside it."""
    from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
    from transformers.models.seamless_m4t.feature_extraction_seamless_m4t import SeamlessM4TFeatureExtractor
    x = clip(2).astype(np.float32) / 32768
    gemma, kaldi = Gemma4AudioFeatureExtractor(), SeamlessM4TFeatureExtractor()

    def gemma_exact(x):
        n = -(-x.size // 128) * 128
        # Windowed in f32, as there; only the transform is made exact.
        padded = np.concatenate([np.zeros(160), x, np.zeros(n - x.size)]).astype(np.float32)
        frames = np.lib.stride_tricks.sliding_window_view(padded, 321)[::160][:, :320] * gemma.window
        logs = np.log(np.abs(np.fft.rfft(frames.astype(np.float64), n=512)) @ gemma.mel_filters + gemma.mel_floor)
        logs[np.arange(len(logs)) * 160 + 320 >= 160 + x.size] = 0
        return logs

    out, blob = [], b""
    for name, preset, (a, b) in [("gemma4", "gemma4", (0, 32000)), ("gemma4, odd", "gemma4", (1000, 9777)), ("gemma4, short", "gemma4", (100, 500)),
                                 ("kaldi", "kaldi80", (0, 32000)), ("kaldi, odd", "kaldi80", (700, 7031)), ("kaldi, one frame", "kaldi80", (0, 400))]:
        y = x[a:b]
        if preset == "gemma4":
            f = gemma([y], sampling_rate=RATE, return_tensors="np")["input_features"][0]
            exact = gemma_exact(y.astype(np.float64))
        else:
            f = exact = kaldi._extract_fbank_features(y)
        columns = sorted({int(c) for c in np.linspace(0, len(f) - 1, 12)})
        out.append({"name": name, "preset": preset, "samples": [a, b], "shape": list(f.shape), "columns": columns, "at": len(blob) // 4,
                    "rounding": float(np.abs(f - exact).max())})
        for path in (f, exact):
            blob += np.ascontiguousarray(path[columns], dtype=np.float32).tobytes()
    (DATA / "logmel.json").write_text("[\n" + ",\n".join(map(json.dumps, out)) + "\n]\n")
    (DATA / "logmel.f32").write_bytes(blob)
    return [(o["name"], o["shape"], o["rounding"]) for o in out]


def silero_cases():
    """Silero's detector in a transform of 16 samples and a handful of channels, with weights of ours, as torch computes it."""
    import torch
    from safetensors.torch import save_file
    g = torch.Generator().manual_seed(5)
    r = lambda *shape, s=1.0: torch.randn(*shape, generator=g) * s
    w, sizes, hidden = 16, [9, 6, 5, 4, 7], 6
    t = {"stft_conv.weight": r(w + 2, 1, w, s=0.3), "final_conv.weight": r(1, hidden, 1, s=2.0), "final_conv.bias": r(1),
         "lstm_cell.weight_ih": r(4 * hidden, sizes[-1]), "lstm_cell.weight_hh": r(4 * hidden, hidden), "lstm_cell.bias_ih": r(4 * hidden), "lstm_cell.bias_hh": r(4 * hidden)}
    for i in range(4):
        t |= {f"conv{i + 1}.weight": r(sizes[i + 1], sizes[i], 3, s=0.4), f"conv{i + 1}.bias": r(sizes[i + 1], s=0.3)}
    cell = torch.nn.LSTMCell(sizes[-1], hidden)
    cell.load_state_dict({k.split(".")[1]: v for k, v in t.items() if k.startswith("lstm")})
    x = torch.cat([torch.zeros(w // 4), r(20 * 2 * w) * torch.linspace(0, 1, 20 * 2 * w)])
    state, out = None, []
    for at in range(w // 4, len(x), 2 * w):
        y = torch.nn.functional.pad(x[None, None, at - w // 4 : at + 2 * w], (0, w // 4), "reflect")
        y = torch.nn.functional.conv1d(y, t["stft_conv.weight"], stride=w // 2)
        y = (y[:, : w // 2 + 1] ** 2 + y[:, w // 2 + 1 :] ** 2).sqrt()
        for i, step in enumerate([1, 2, 2, 1]):
            y = torch.relu(torch.nn.functional.conv1d(y, t[f"conv{i + 1}.weight"], t[f"conv{i + 1}.bias"], stride=step, padding=1))
        state = cell(y[..., 0], state)
        out.append(torch.sigmoid(torch.nn.functional.conv1d(torch.relu(state[0])[..., None], t["final_conv.weight"], t["final_conv.bias"])).flatten())
    save_file({k: v.contiguous() for k, v in t.items()} | {"samples": x[w // 4 :].clone(), "probabilities": torch.cat(out).detach()}, DATA / "silero.safetensors")
    return [round(float(p), 3) for p in torch.cat(out)]


def x_of(wav):
    return soundfile.read(io.BytesIO(wav), dtype="float32")[0]


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    for part in sys.argv[1:] or ["whisper", "decode", "packed", "logmel", "silero"]:
        print(part, globals()[part + "_cases"]())
