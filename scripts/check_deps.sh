#!/usr/bin/env bash
# Data flows one way: checks the dependency graph as cargo resolves it.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=0

# forbid CRATE DEPENDENCY...: none of them may be reached from CRATE through normal dependencies, with all its features.
forbid() {
  local crate=$1 tree dep
  shift
  tree=$(cargo tree -p "firelight-$crate" -e normal --all-features --prefix none --target all --format '{p}' | cut -d' ' -f1 | sort -u)
  for dep in "$@"; do
    if grep -qx "$dep" <<<"$tree"; then
      echo "firelight-$crate depends on $dep:"
      cargo tree -p "firelight-$crate" -e normal --all-features --target all -i "$dep" | sed 's/^/    /'
      bad=1
    fi
  done
  echo "firelight-$crate: $(wc -l <<<"$tree") crates, none of: $*"
}
gpu=(wgpu wgpu-core wgpu-hal naga)
ours() { local x; for x in "$@"; do echo "firelight-$x"; done; }
forbid tensor "${gpu[@]}" $(ours kernels vision audio text runtime testing)
forbid vision "${gpu[@]}" $(ours kernels audio text runtime testing)
forbid audio "${gpu[@]}" $(ours kernels vision text runtime testing)
forbid text "${gpu[@]}" $(ours tensor kernels vision audio runtime testing)
forbid kernels $(ours vision audio text runtime testing)
forbid runtime firelight-testing

# `testing` is for tests alone, and knows none of the others.
cargo metadata --format-version 1 --all-features >"${TMPDIR:-/tmp}/firelight-metadata.$$"
trap 'rm -f "${TMPDIR:-/tmp}/firelight-metadata.$$"' EXIT
scripts/check_features.py "${TMPDIR:-/tmp}/firelight-metadata.$$" || bad=1
exit $bad
