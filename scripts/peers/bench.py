"""What `scripts/bench_peers.sh` runs once everything is built: its environment says with whom."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

env = os.environ
prefill, decode, runs = env["PREFILL"], env["DECODE"], int(env["RUNS"])
peers_folder = Path(__file__).parent


def run(command, threads, **more):
    """What a command prints. As many threads as cores are bound to the cores by the system; fewer are bound here, for everyone."""
    cores = sorted(os.sched_getaffinity(0))[: int(threads)]
    bind = lambda: os.sched_setaffinity(0, cores)
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=bind, env={**env, **more}
    ).stdout


def last_line(text):
    result = json.loads(text.strip().splitlines()[-1])
    return result["prefill_tps"], result["decode_tps"]


def firelight(model, threads):
    command = [env["FIRELIGHT"], "bench", "--model", model, "-p", prefill, "-n", decode]
    command += ["--device", "cpu", "--threads", threads, "--json", *env["FIRELIGHT_ARGS"].split()]
    return last_line(run(command, threads))


def llama(model, threads):
    command = [env["LLAMA_BENCH"], "-m", model, "-p", prefill, "-n", decode, "-t", threads, "-r", "2", "-ngl", "0"]
    rows = json.loads(run([*command, "-o", "json"], threads))
    prompt = next(row["avg_ts"] for row in rows if row["n_prompt"] > 0)
    generate = next(row["avg_ts"] for row in rows if row["n_gen"] > 0)
    return prompt, generate


def candle(model, threads):
    return last_line(run([env["CANDLE_BENCH"], model, prefill, decode], threads, RAYON_NUM_THREADS=threads))


def onnxruntime(model, threads):
    onnx = Path("target/peers/onnx") / Path(model).resolve().name
    if not (onnx / "genai_config.json").exists():
        build = [env["PYTHON"], "-m", "onnxruntime_genai.models.builder", "-i", model, "-o", str(onnx)]
        subprocess.run([*build, "-p", "fp32", "-e", "cpu", "-c", "target/peers/cache"], check=True, stdout=sys.stderr)
    script = str(peers_folder / "onnxruntime_bench.py")
    return last_line(run([env["PYTHON"], script, str(onnx), prefill, decode, threads], threads))


PEERS = {"llama.cpp": llama, "candle": candle, "onnxruntime": onnxruntime}
asked = env["PEERS"].split()
if unknown := [name for name in asked if name not in PEERS]:
    sys.exit(f"PEERS: {' '.join(unknown)} is not known; there are {' '.join(PEERS)}")

print(f"tokens/s, medians of {runs} turns; ratio = firelight / peer, median of the turns")
print(f"{'model':40} {'threads':>7}  {'':8} {'firelight':>10} {'peer':>11} {'its':>8} {'ratio':>6}")
for model in sys.argv[1:]:
    names = [name for name in asked if name != ("llama.cpp" if os.path.isdir(model) else "onnxruntime")]
    for threads in dict.fromkeys(env["THREADS"].split()):
        turns = [[firelight(model, threads), *(PEERS[name](model, threads) for name in names)] for _ in range(runs)]
        for i, kind in enumerate([f"pp{prefill}", f"tg{decode}"]):
            for n, name in enumerate(names, 1):
                ours = statistics.median(turn[0][i] for turn in turns)
                theirs = statistics.median(turn[n][i] for turn in turns)
                ratio = statistics.median(turn[0][i] / turn[n][i] for turn in turns)
                base = os.path.basename(model.rstrip("/"))[:40]
                print(f"{base:40} {threads:>7}  {kind:8} {ours:10.1f} {name:>11} {theirs:8.1f} {ratio:5.2f}x", flush=True)
    if env.get("PROFILE"):
        command = [env["FIRELIGHT"], "bench", "--model", model, "-p", prefill, "-n", decode, "-r", "3"]
        command += ["--device", "cpu", "--threads", "1", "--profile", *env["FIRELIGHT_ARGS"].split()]
        print(run(command, "1"), flush=True)
