#!/usr/bin/env bash
# Puts the site together: assemble.sh OUT [ENGINE]
#   OUT     the folder to write; what was there before is replaced, but for OUT/models
#   ENGINE  the folder with wasm-bindgen's output of examples/web/engine; left out where it is missing
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: assemble.sh OUT [ENGINE]} engine=${2:-}

# A slip of the hand must not empty a folder that is not a site.
if [ -d "$out" ] && [ -n "$(ls -A "$out")" ] && [ ! -f "$out/site.js" ]; then
  echo "$out is not empty and not a site: name another folder" >&2
  exit 1
fi
mkdir -p "$out"
find "$out" -mindepth 1 -maxdepth 1 ! -name models -exec rm -rf {} +
cp -R "$here/app/." "$out/"
if [ -d "$here/api" ]; then mkdir "$out/api" && cp -R "$here/api/." "$out/api/"; fi
if [ -n "$engine" ]; then mkdir -p "$out/engine" && cp -R "$engine/." "$out/engine/"; fi
find "$out" -name '*.d.ts' -delete

# The list of the shell's files, and a version that changes with any of them.
cd "$out"
files=$(find . -type f ! -path './models/*' ! -name site.js ! -name sw.js | LC_ALL=C sort | sed 's|^\./||')
version=$( (cat sw.js; while IFS= read -r f; do echo "$f"; cat "$f"; done <<<"$files") | sha256sum | cut -c1-16)
{
  printf '// Written by assemble.sh: what the service worker keeps.\nself.FIRELIGHT_SITE = { version: "%s", hosts: [], files: [\n' "$version"
  while IFS= read -r f; do printf '  "%s",\n' "$f"; done <<<"$files"
  printf '] };\n'
} >site.js
printf 'site %s: %s files, %s bytes in %s\n' "$version" "$(wc -l <<<"$files")" "$(du -sb --exclude=models . | cut -f1)" "$out"
