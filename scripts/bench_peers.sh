#!/usr/bin/env bash
# Speed beside others on this machine: `firelight bench` and its peers in turn, same model, threads and lengths, all on the processor.
#
#   scripts/bench_peers.sh MODEL.gguf|FOLDER [MODEL.gguf|FOLDER …]
#
# Environment (all optional):
#   PEERS="llama.cpp"  who: llama.cpp and candle for GGUF files, candle and onnxruntime for folders of safetensors (llama, in f32)
#   THREADS="1 2"      thread counts to measure (default: 1 and all cores)
#   RUNS=5             turns; the medians and the median of the turns' ratios are printed
#   PREFILL=256 DECODE=64
#   LLAMA_BENCH=PATH   an existing llama-bench; otherwise one is built in target/peers from the llama.cpp sources that the
#                      crate `llama-cpp-sys-4` carries (needs cmake and a C++ compiler, takes some minutes)
#   CANDLE_BENCH=PATH  an existing candle-bench; otherwise scripts/peers is built for this processor
#   PYTHON=python3     for onnxruntime: one with `pip install onnxruntime-genai onnx onnx-ir torch transformers`; the folder is turned into
#                      ONNX by its model builder, in target/peers
#   FIRELIGHT=PATH     an existing firelight program; otherwise it is built with --release
#   FIRELIGHT_ARGS     more arguments for it (for instance "--exact")
#   PROFILE=1          also the roofline of each model: the time of every kernel against the device's measured ceilings, one thread
#
# Machines are noisy: the ratio of a turn compares two runs that followed each other, so its median says more than the ratio of
# the medians.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -eq 0 ]; then
    sed -n '2,24s/^# \{0,1\}//p' "$0"
    exit 2
fi
export PEERS=${PEERS:-llama.cpp} PYTHON=${PYTHON:-python3}
asked() { case " $PEERS " in *" $1 "*) true ;; *) false ;; esac }

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
    cmake --build "$work/build" --target llama-bench -j "$(nproc)" >&2
    LLAMA_BENCH=$work/build/bin/llama-bench
}

if asked llama.cpp && [ -z "${LLAMA_BENCH:-}" ]; then
    build_llama_bench
fi
if asked candle && [ -z "${CANDLE_BENCH:-}" ]; then
    RUSTFLAGS="-C target-cpu=native" cargo build --release --manifest-path scripts/peers/Cargo.toml --target-dir target/peers/candle
    CANDLE_BENCH=target/peers/candle/release/candle-bench
fi
if [ -z "${FIRELIGHT:-}" ]; then
    cargo build --release --bin firelight
    FIRELIGHT=${CARGO_TARGET_DIR:-target}/release/firelight
fi

export FIRELIGHT LLAMA_BENCH=${LLAMA_BENCH:-} CANDLE_BENCH=${CANDLE_BENCH:-}
export FIRELIGHT_ARGS=${FIRELIGHT_ARGS:-} RUNS=${RUNS:-5} PREFILL=${PREFILL:-256} DECODE=${DECODE:-64}
export THREADS=${THREADS:-"1 $(getconf _NPROCESSORS_ONLN)"}

exec python3 scripts/peers/bench.py "$@"
