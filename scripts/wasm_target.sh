#!/usr/bin/env bash
# Makes `cargo build --target wasm32-unknown-unknown` work with the installed toolchain. Safe to run again.
# `rustup target add` does it on most machines. Where only a Debian mirror is in reach, the standard library is compiled once
# from Debian's package of its source, if there is one of exactly this rustc, and laid into the toolchain.
set -euo pipefail
triple=wasm32-unknown-unknown
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

works() {
  echo 'pub fn probe() -> Vec<u8> { vec![1] }' | rustc --target $triple --crate-type rlib -o "$dir/probe.rlib" - 2>/dev/null
}
done_by() { echo "$triple: $1"; exit 0; }

works && done_by "there already"
if command -v rustup >/dev/null; then
  timeout 60 rustup target add $triple >/dev/null 2>&1 || true
  works && done_by "added by rustup"
fi

version=$(rustc --version | cut -d' ' -f2)
command -v curl >/dev/null && command -v dpkg-deb >/dev/null && command -v xz >/dev/null ||
  { echo "$triple: run 'rustup target add $triple' where its server can be reached" >&2; exit 1; }
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
  grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | sed 's|/* *$||') || true
[ -n "$mirror" ] || { echo "$triple: no Debian mirror is configured" >&2; exit 1; }
package=
for suite in bookworm-backports trixie trixie-backports forky sid; do
  package=$(curl -fsS --retry 2 "$mirror/dists/$suite/main/binary-amd64/Packages.xz" | xz -dc | awk -v want="$version" '
    /^Package: / { name = $2 } /^Version: / { version = $2 }
    /^Filename: / && (name == "rust-src" || name == "rust-web-src") && index(version, want "+") == 1 { print $2; exit }') || true
  [ -z "$package" ] || break
done
[ -n "$package" ] || { echo "$triple: no source package of rustc $version on the Debian mirror" >&2; exit 1; }

curl -fsS --retry 2 -o "$dir/src.deb" "$mirror/$package"
dpkg-deb -x "$dir/src.deb" "$dir/src"
sysroot=$(rustc --print sysroot)
mkdir -p "$sysroot/lib/rustlib/src/rust" "$sysroot/lib/rustlib/$triple/lib"
cp -r "$dir"/src/usr/src/rustc-*/library "$sysroot/lib/rustlib/src/rust/"
cargo init -q --lib --vcs none --name probe "$dir/probe"
# -Zbuild-std belongs to the nightly compiler; this variable lets the stable one do it for the standard library itself.
(cd "$dir/probe" && RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=out cargo build -q --release --target $triple -Zbuild-std=std,panic_abort,proc_macro)
for lib in "$dir/probe/out/$triple/release/deps"/*.rlib; do
  case $(basename "$lib") in libprobe-*) ;; *) cp "$lib" "$sysroot/lib/rustlib/$triple/lib/" ;; esac
done
works && done_by "compiled from Debian's source of rustc $version"
echo "$triple: was compiled, but rustc does not accept it" >&2
exit 1
