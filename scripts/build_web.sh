#!/usr/bin/env bash
# Builds the browser's engine and puts the site together: build_web.sh [--quick] [OUT]
#   OUT      the site's folder (default target/web); the engine alone is in target/web-engine
#   --quick  without whole-program optimisation: for trying things out and for the browser tests
# One binary per SIMD level, of which the browser takes the best it can run: relaxed (relaxed integer dot products) and simd (simd128).
# wasm-bindgen's program is installed into target/tools in the version Cargo.lock names; wasm-opt is used where it is found. Ends with
# the sizes, which are checked: at most 1.5 MB gzip.
set -euo pipefail
cd "$(dirname "$0")/.."
quick=0
if [ "${1:-}" = --quick ]; then quick=1; shift; fi
out=${1:-target/web}
tools=$PWD/target/tools
engine=$PWD/target/web-engine
triple=wasm32-unknown-unknown
limit=1500000
levels=(simd relaxed)
declare -A features=([simd]=+simd128 [relaxed]=+simd128,+relaxed-simd)

version=$(awk '/^name = "wasm-bindgen"$/ { getline; gsub(/[^0-9.]/, ""); print; exit }' Cargo.lock)
bindgen=${WASM_BINDGEN:-$tools/bin/wasm-bindgen}
if [ "$("$bindgen" --version 2>/dev/null)" != "wasm-bindgen $version" ]; then
  echo "installing wasm-bindgen $version into target/tools (a few minutes, once)"
  # Unoptimised: it runs for a second, and is compiled on every fresh machine.
  cargo install --quiet wasm-bindgen-cli --version "$version" --root "$tools" --debug --force
  bindgen=$tools/bin/wasm-bindgen
fi
# npm's wasm-opt takes minutes; a native one, seconds.
wasm_opt=${WASM_OPT:-$(command -v wasm-opt || true)}

profile=(--profile web)
folder=web
if [ $quick -eq 1 ]; then
  profile=(--profile web --config 'profile.web.lto="off"' --config profile.web.codegen-units=16)
fi
failed=0
rm -rf "$engine"
for level in "${levels[@]}"; do
  target_dir=${CARGO_TARGET_DIR:-target}/web-$level$([ $quick -eq 0 ] || echo -quick)
  RUSTFLAGS="-C target-feature=${features[$level]}" cargo build --quiet -p firelight-web-engine --target $triple --target-dir "$target_dir" "${profile[@]}"
  mkdir -p "$engine/$level"
  "$bindgen" --target web --no-typescript --remove-name-section --remove-producers-section --out-name firelight --out-dir "$engine/$level" \
    "$target_dir/$triple/$folder/firelight_web_engine.wasm"
  wasm=$engine/$level/firelight_bg.wasm
  if [ $quick -eq 0 ] && [ -n "$wasm_opt" ]; then
    "$wasm_opt" -O2 --enable-simd --enable-relaxed-simd --enable-bulk-memory --enable-nontrapping-float-to-int --enable-sign-ext \
      --enable-mutable-globals --enable-reference-types --enable-multivalue "$wasm" -o "$wasm.opt"
    mv "$wasm.opt" "$wasm"
  fi
  bytes=$(gzip -9c "$wasm" | wc -c)
  printf 'engine/%s: %d bytes, %d gzip (at most %d)\n' "$level" "$(wc -c <"$wasm")" "$bytes" $limit
  if [ $quick -eq 0 ] && [ "$bytes" -gt $limit ]; then
    echo "engine/$level is too large" >&2
    failed=1
  fi
done
[ -f examples/web/assemble.sh ] && bash examples/web/assemble.sh "$out" "$engine"
exit $failed
