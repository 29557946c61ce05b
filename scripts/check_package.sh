#!/usr/bin/env bash
# Packages every published crate, unpacks the packages, and compiles them against each other: what is not in a package is not there.
# (cargo's own verification would compile all of wgpu a second time, to machine code; this only checks.)
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
names() { cargo metadata --no-deps --format-version 1 | python3 -c "import json,sys; print(*(p['name'] for p in json.load(sys.stdin)['packages'] if p['publish'] $1 []), sep='\n')"; }
mapfile -t published < <(names '!=')
mapfile -t unpublished < <(names '==')

rm -rf "$target/package"
dirty=(--allow-dirty)
[ "${CI:-}" = true ] && dirty=()
cargo package --workspace --no-verify "${dirty[@]}" "${unpublished[@]/#/--exclude=}"

there=$target/package/unpacked
mkdir -p "$there"
printf '[workspace]\nresolver = "3"\nmembers = ["*-*"]\n\n[patch.crates-io]\n' >"$there/Cargo.toml"
for name in "${published[@]}"; do
  archive=$(compgen -G "$target/package/$name-[0-9]*.crate")
  # New times of change: those in a package are all the same, and an older build would count as fresh.
  tar -xzmf "$archive" -C "$there"
  folder=$(basename "$archive" .crate)
  printf '%s = { path = "%s" }\n' "$name" "$folder" >>"$there/Cargo.toml"
  for must in README.md Cargo.toml src/lib.rs; do
    [ -f "$there/$folder/$must" ] || { echo "$name: $must is not in the package" >&2; exit 1; }
  done
  size=$(stat -c %s "$archive")
  echo "$name: $((size / 1024)) KiB packed"
  [ "$size" -lt 2000000 ] || { echo "$name: the package is over 2 MB: does it carry test data? (\`exclude\` in its Cargo.toml)" >&2; exit 1; }
done
cp Cargo.lock "$there/"
# The same profiles, so that what other steps have compiled for these dependencies is used again.
sed -n '/^\[profile/,/^$/p' Cargo.toml >>"$there/Cargo.toml"
cargo check --manifest-path "$there/Cargo.toml" --workspace
