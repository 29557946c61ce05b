#!/usr/bin/env bash
# Packages every published crate and compiles each from its package alone, siblings included, as a registry would serve them.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t unpublished < <(cargo metadata --no-deps --format-version 1 |
  python3 -c 'import json,sys; print(*(p["name"] for p in json.load(sys.stdin)["packages"] if p["publish"] == []), sep="\n")')
# The workspace's profile, which packages do not carry: the dependencies are then those that the tests have built.
profile=(--config profile.dev.opt-level=1 --config 'profile.dev.debug="line-tables-only"'
  --config 'profile.dev.package."*".opt-level=2' --config 'profile.dev.package."*".debug=false')
dirty=(--allow-dirty)
[ "${CI:-}" = true ] && dirty=()
cargo "${profile[@]}" package --workspace "${dirty[@]}" $(printf -- '--exclude %s ' "${unpublished[@]}")
