#!/usr/bin/env bash
# Speed beside llama.cpp on this machine: `firelight bench` and `llama-bench` in turn, same model, threads and lengths.
#
#   scripts/bench_peers.sh MODEL.gguf [MODEL.gguf …]
#
# Environment (all optional):
#   THREADS="1 2"     thread counts to measure (default: 1 and all cores)
#   RUNS=5            turns; the medians and the median of the turns' ratios are printed
#   PREFILL=256 DECODE=64
#   LLAMA_BENCH=PATH  an existing llama-bench; otherwise one is built in target/peers from the llama.cpp sources that the
#                     crate `llama-cpp-sys-4` carries (needs cmake and a C++ compiler, takes some minutes)
#   FIRELIGHT=PATH    an existing firelight program; otherwise it is built with --release
#   FIRELIGHT_ARGS    more arguments for it (for instance "--exact")
#   PROFILE=1         also the roofline of each model: the time of every kernel against the device's measured ceilings, one thread
#
# Machines are noisy: the ratio of a turn compares two runs that followed each other, so its median says more than the ratio of
# the medians.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -eq 0 ]; then
    sed -n '2,18s/^# \{0,1\}//p' "$0"
    exit 2
fi

build_llama_bench() {
    local work=target/peers
    mkdir -p "$work/fetch/src"
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2024"\n[dependencies]\nllama-cpp-sys-4 = "0.11"\n[workspace]\n' \
        >"$work/fetch/Cargo.toml"
    : >"$work/fetch/src/lib.rs"
    local manifest
    manifest=$(cargo metadata --manifest-path "$work/fetch/Cargo.toml" --format-version 1 |
        python3 -c 'import json,sys; print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "llama-cpp-sys-4"))')
    cmake -S "$(dirname "$manifest")/llama.cpp" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
        -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF >&2
    cmake --build "$work/build" --target llama-bench -j >&2
    LLAMA_BENCH=$work/build/bin/llama-bench
}

[ -n "${LLAMA_BENCH:-}" ] || build_llama_bench
if [ -z "${FIRELIGHT:-}" ]; then
    cargo build --release --bin firelight
    FIRELIGHT=${CARGO_TARGET_DIR:-target}/release/firelight
fi

export LLAMA_BENCH FIRELIGHT
export FIRELIGHT_ARGS=${FIRELIGHT_ARGS:-} RUNS=${RUNS:-5} PREFILL=${PREFILL:-256} DECODE=${DECODE:-64}
export THREADS=${THREADS:-"1 $(getconf _NPROCESSORS_ONLN)"}

exec python3 - "$@" <<'PYTHON'
import json
import os
import statistics
import subprocess
import sys

env = os.environ
prefill, decode, runs = env["PREFILL"], env["DECODE"], int(env["RUNS"])


def run(command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def firelight(model, threads):
    command = [env["FIRELIGHT"], "bench", "--model", model, "-p", prefill, "-n", decode]
    command += ["--device", "cpu", "--threads", threads, "--json", *env["FIRELIGHT_ARGS"].split()]
    result = json.loads(run(command).strip().splitlines()[-1])
    return result["prefill_tps"], result["decode_tps"]


def llama(model, threads):
    command = [env["LLAMA_BENCH"], "-m", model, "-p", prefill, "-n", decode, "-t", threads, "-r", "2", "-ngl", "0"]
    rows = json.loads(run([*command, "-o", "json"]))
    prompt = next(row["avg_ts"] for row in rows if row["n_prompt"] > 0)
    generate = next(row["avg_ts"] for row in rows if row["n_gen"] > 0)
    return prompt, generate


print(f"tokens/s, medians of {runs} turns; ratio = firelight / llama.cpp, median of the turns")
print(f"{'model':40} {'threads':>7}  {'':8} {'firelight':>10} {'llama.cpp':>10} {'ratio':>6}")
for model in sys.argv[1:]:
    for threads in dict.fromkeys(env["THREADS"].split()):
        turns = [(firelight(model, threads), llama(model, threads)) for _ in range(runs)]
        for i, name in enumerate([f"pp{prefill}", f"tg{decode}"]):
            ours = statistics.median(ours[i] for ours, _ in turns)
            theirs = statistics.median(theirs[i] for _, theirs in turns)
            ratio = statistics.median(ours[i] / theirs[i] for ours, theirs in turns)
            base = os.path.basename(model)[:40]
            print(f"{base:40} {threads:>7}  {name:8} {ours:10.1f} {theirs:10.1f} {ratio:5.2f}x", flush=True)
    if env.get("PROFILE"):
        command = [env["FIRELIGHT"], "bench", "--model", model, "-p", prefill, "-n", decode, "-r", "3", "--device", "cpu", "--threads", "1", "--profile"]
        print(run([*command, *env["FIRELIGHT_ARGS"].split()]), flush=True)
PYTHON
