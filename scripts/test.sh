#!/usr/bin/env bash
# Runs every check of the project, after installing what they need. `scripts/test.sh --help` says more.
set -uo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'T'
usage: scripts/test.sh [--fail-fast] [--list] [all | quick | STEP ...]

Without arguments every step runs. `quick` is the inner loop: fmt files clippy test, nothing installed.

  setup        installs what is missing: lavapipe and SwiftShader (software GPUs), clippy, rustfmt, the wasm target
  fmt          cargo fmt --check
  files        lengths of source files, no paths of one machine, executable scripts
  deps         who may depend on whom, and that each feature's dependency is gone without it
  clippy       warnings are errors: all targets and features, and each crate without its default features
  wasm         clippy of the library crates and the browser's engine for wasm32-unknown-unknown
  test         unit, integration, GPU (the machine's own adapters) and documentation tests
  lavapipe     the GPU tests again on Mesa's software adapter   (in `all` only where a real GPU ran them before)
  swiftshader  the GPU tests again on Chromium's software adapter, which has no f16
  web          the browser's engine, built as it is shipped, and the browser tests: Chromium, with and without WebGPU
  doc          the documentation, warnings are errors
  package      what each published crate would upload, compiled from that alone
  fuzz         the fuzz targets compile

environment
  GPU_TESTS=auto|require|off   run GPU tests where there is an adapter (default), fail without one, or run none
  CARGO_TARGET_DIR             default: target; each step's full output is in its test-logs/STEP.log
  CI=true                      a step that cannot run is a failure, not a skip

The last line is `N passed, N failed, N skipped` over all tests and steps; what was skipped is listed above it with the reason.
T
}

all=(setup fmt files deps clippy wasm test lavapipe swiftshader web doc package fuzz)
quick=(fmt files clippy test)
libraries=(tensor kernels vision audio text runtime)
gpu_packages=(firelight-kernels firelight-runtime)
target=${CARGO_TARGET_DIR:-target}
logs=$target/test-logs
export CARGO_TERM_COLOR=never CARGO_TARGET_DIR="$target" GPU_TESTS="${GPU_TESTS:-auto}"
swiftshader_icd=/usr/lib/chromium/vk_swiftshader_icd.json

skip() { printf 'SKIPPED %s: %s\n' "$1" "$2"; }
# Skips a step, or fails it where everything has to run.
cannot() {
  if [ "${CI:-}" = true ]; then echo "$1: $2" >&2; return 1; fi
  skip "$1" "$2"
}
real_gpu() { compgen -G '/dev/dri/renderD*' >/dev/null || [ -e /dev/nvidia0 ] || [ -e /dev/dxg ]; }

step_setup() { scripts/setup.sh; }
step_fmt() { cargo fmt --all --check; }
step_files() { scripts/check_files.sh; }
step_deps() { scripts/check_deps.sh; }
step_clippy() {
  cargo clippy --workspace --all-targets --all-features -- -D warnings
  for c in "${libraries[@]}"; do
    cargo clippy -p "firelight-$c" --no-default-features -- -D warnings
  done
}
step_wasm() {
  scripts/wasm_target.sh || { cannot wasm "the target wasm32-unknown-unknown could not be installed"; return; }
  cargo clippy --target wasm32-unknown-unknown "${libraries[@]/#/-pfirelight-}" -p firelight-web-engine --features firelight-web-engine/everything -- -D warnings
  cargo clippy --target wasm32-unknown-unknown -p firelight-web-engine -- -D warnings
}
step_test() { cargo test --workspace --no-fail-fast; }

# Runs the GPU packages' tests that `test` built, on one adapter; those of the processor alone, which say so in their names, ran
# there, and so did `bounds`, whose law is the shaders' own. `cargo test -p …` would build all of wgpu again, since the features of
# shared dependencies depend on what else is selected.
gpu_tests_on() {
  local icd=$1 bins rc=0 dir exe
  bins=$(cargo test --workspace --no-run --message-format=json-render-diagnostics | scripts/test_binaries.py "${gpu_packages[@]}")
  [ -n "$bins" ] || { echo "no test binaries of ${gpu_packages[*]}: do they compile?" >&2; return 1; }
  while IFS=$'\t' read -r dir exe; do
    [[ $exe != */bounds-* ]] || continue
    echo "     Running $exe"
    (cd "$dir" && VK_ICD_FILENAMES=$icd VK_DRIVER_FILES=$icd CARGO_MANIFEST_DIR=$dir "$exe" --skip cpu_ --skip _cpu) || rc=1
  done <<<"$bins"
  return $rc
}
step_lavapipe() {
  local icd
  icd=$(compgen -G '/usr/share/vulkan/icd.d/lvp_icd*.json' | head -n 1) || true
  [ -n "$icd" ] || { cannot lavapipe "Mesa's lavapipe is not installed (scripts/setup.sh installs it)"; return; }
  gpu_tests_on "$icd"
}
step_swiftshader() {
  [ -e $swiftshader_icd ] || { cannot swiftshader "Chromium's SwiftShader is not installed (scripts/setup.sh installs it)"; return; }
  gpu_tests_on $swiftshader_icd
}
step_web() {
  command -v npm >/dev/null || { cannot web "node and npm are not installed (scripts/setup.sh installs them)"; return; }
  scripts/wasm_target.sh || { cannot web "the target wasm32-unknown-unknown could not be installed"; return; }
  [ -d examples/web/tests/node_modules/playwright-core ] || npm install --prefix examples/web/tests ||
    { cannot web "npm could not install playwright-core"; return; }
  scripts/build_web.sh
  # The program as `test` built it, dependencies and all: selected alone it would be built once more, with other features of them.
  cargo test --workspace --no-run --test cli
  # The one real model of these tests, through the catalogue's sources.
  "$target/debug/firelight" models fetch smollm2-135m-instruct || echo "WARNING SmolLM2 could not be fetched"
  FIRELIGHT=$(realpath "$target")/debug/firelight node examples/web/tests/run.mjs
}
step_doc() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features; }
step_package() { scripts/check_package.sh; }
step_fuzz() {
  [ -f fuzz/Cargo.toml ] || { echo "fuzz/Cargo.toml is missing" >&2; return 1; }
  cargo check --manifest-path fuzz/Cargo.toml --bins
}

# Sums the runners' closing lines and the SKIPPED lines of a log: passed failed skipped. A test that did not run at all ended as
# `ok` for the runner, so it is taken off the passed ones; a part of a test (`SKIPPED test [part]: …`) is not.
count() {
  awk '
    /^test result: / { for (i = 1; i <= NF; i++) { if ($i == "passed;") p += $(i-1); if ($i == "failed;") f += $(i-1); if ($i == "ignored;") s += $(i-1) } }
    /^SKIPPED [^:]*: / && !seen[$0]++ { s++; if ($0 !~ /^SKIPPED [^:]* \[/) whole++ }
    END { print p - (p > 0 ? whole : 0), f + 0, s + 0 }' "$1"
}

fail_fast=0 steps=()
for arg in "$@"; do
  case $arg in
    -h | --help) usage; exit 0 ;;
    --list) printf '%s\n' "${all[@]}"; exit 0 ;;
    --fail-fast) fail_fast=1 ;;
    all) steps+=("${all[@]}") ;;
    quick) steps+=("${quick[@]}") ;;
    *) [[ " ${all[*]} " == *" $arg "* ]] || { echo "scripts/test.sh: no step is called '$arg' (see --help)" >&2; exit 2; }
       steps+=("$arg") ;;
  esac
done
if [ ${#steps[@]} -eq 0 ]; then
  for s in "${all[@]}"; do
    [ "$s" = lavapipe ] && ! real_gpu && continue # the machine's own adapter is lavapipe: `test` has used it
    steps+=("$s")
  done
fi
[ "$GPU_TESTS" = off ] && steps=($(printf '%s\n' "${steps[@]}" | grep -vx -e lavapipe -e swiftshader))
command -v cargo >/dev/null || { echo "scripts/test.sh: cargo is not installed: https://rustup.rs" >&2; exit 2; }

mkdir -p "$logs"
passed=0 failed=0 skipped=0 table='' began=$SECONDS
for step in "${steps[@]}"; do
  log=$logs/$step.log start=$SECONDS
  printf '==> %-12s' "$step"
  (set -eo pipefail; "step_$step") >"$log" 2>&1 </dev/null
  rc=$?
  read -r p f s <<<"$(count "$log")"
  # A step without tests of its own is one check; a test step that fails without a failed test did not compile.
  if [ $rc -ne 0 ]; then
    [ "$f" -gt 0 ] || f=1
  elif [ "$p" -eq 0 ] && [ "$s" -eq 0 ]; then
    case $step in
      test | lavapipe | swiftshader | web) echo "no test ran: that is a failure" >>"$log"; rc=1 f=1 ;;
      *) p=1 ;;
    esac
  fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  word=ok; [ "$s" -gt 0 ] && [ "$p" -eq 0 ] && word=skipped; [ $rc -ne 0 ] && word=FAILED
  line=$(printf '%-8s %5d s  %5d passed %4d failed %4d skipped' "$word" $((SECONDS - start)) "$p" "$f" "$s")
  printf '%s\n' "$line"
  table+=$(printf '    %-12s%s' "$step" "$line")$'\n'
  if [ $rc -ne 0 ]; then
    echo "--- the end of $log"; tail -n 60 "$log"; echo "---"
    [ $fail_fast -eq 1 ] && break
  fi
done

printf '\nsummary after %d s (logs in %s)\n%s' $((SECONDS - began)) "$logs" "$table"
for step in "${steps[@]}"; do
  [ -f "$logs/$step.log" ] && grep -E '^(SKIPPED|WARNING) ' "$logs/$step.log" | sort -u
done
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
