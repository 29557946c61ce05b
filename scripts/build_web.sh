#!/usr/bin/env bash
# Builds the browser's engine and puts the site together: build_web.sh [--quick] [--only BUILD,…] [OUT]
#   OUT      the site's folder (default target/web); the engine alone is in target/web-engine
#   --quick  without whole-program optimisation and its size gate: for trying things out
#   --only   some of the builds: simd, relaxed, simd-everything, relaxed-everything
# Two engines: the one a page loads first, for text alone (at most 1.5 MB gzip), and one with everything (at most 2.5 MB), which pages
# load when they need it. Each twice, of which the browser takes the best it can run: relaxed SIMD (integer dot products) or simd128.
# wasm-opt is not used: it takes minutes and saves nothing after the compiler's own optimisation for size (measured).
set -euo pipefail
cd "$(dirname "$0")/.."
quick=0 builds=simd,relaxed,simd-everything,relaxed-everything
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=1; shift ;;
    --only) builds=$2; shift 2 ;;
    -*) sed -n '2,5p' "$0" >&2; exit 2 ;;
    *) break ;;
  esac
done
out=${1:-target/web}
engine=$PWD/target/web-engine
target=${CARGO_TARGET_DIR:-target}
triple=wasm32-unknown-unknown
limit_text=1500000 limit_everything=2500000

cargo build --quiet -p firelight-web-bindgen
profile=(--profile web)
[ $quick -eq 0 ] || profile+=(--config 'profile.web.lto="off"' --config profile.web.codegen-units=16)
rm -rf "$engine"
for build in ${builds//,/ }; do
  case $build in
    simd | relaxed | simd-everything | relaxed-everything) ;;
    *) echo "no build is called $build" >&2; exit 2 ;;
  esac
done

# The builds of one SIMD level, one after the other: they share a folder, and in it what they have in common.
build_level() {
  local level=$1 flags=$2 failed=0 build features limit wasm bytes
  local dir=$target/web-$level$([ $quick -eq 0 ] || echo -quick)
  for build in "$level" "$level-everything"; do
    [[ ,$builds, == *,$build,* ]] || continue
    features=() limit=$limit_text
    [[ $build != *-everything ]] || features=(--features everything) limit=$limit_everything
    # Paths of this machine do not belong into what is shipped.
    RUSTFLAGS="-C target-feature=$flags --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src= --remap-path-prefix=$PWD=" \
      cargo build --quiet -p firelight-web-engine "${features[@]}" --target $triple --target-dir "$dir" "${profile[@]}" || return 1
    "$target/debug/firelight-web-bindgen" "$dir/$triple/web/firelight_web_engine.wasm" "$engine/$build" || return 1
    wasm=$engine/$build/firelight_bg.wasm
    bytes=$(gzip -9c "$wasm" | wc -c)
    printf 'engine/%s: %d bytes, %d gzip (at most %d)\n' "$build" "$(wc -c <"$wasm")" "$bytes" "$limit"
    if [ $quick -eq 0 ] && [ "$bytes" -gt "$limit" ]; then
      echo "engine/$build is too large" >&2
      failed=1
    fi
  done
  return $failed
}

# The levels beside each other: whole-program optimisation, most of the time, is one thread of each.
failed=0 levels=()
build_level simd +simd128 & levels+=($!)
build_level relaxed +simd128,+relaxed-simd & levels+=($!)
for level in "${levels[@]}"; do wait "$level" || failed=1; done
[ -n "$(ls "$engine" 2>/dev/null)" ] || exit 1
bash examples/web/assemble.sh "$out" "$engine"
exit $failed
