#!/usr/bin/env bash
# Installs what the tests need on Debian or Ubuntu, and only what is missing. Safe to run again; needs root or sudo.
#   a C and C++ compiler (build scripts, fuzz targets), python3, curl and xz (checks, wasm target), ALSA's headers, the Vulkan loader,
#   Mesa's lavapipe where there is no GPU, Chromium (the browser tests) with its SwiftShader driver (a second software GPU, weaker
#   than lavapipe), node and npm, rustfmt, clippy, the wasm target
set -euo pipefail
cd "$(dirname "$0")/.."

packages=()
command -v cc >/dev/null || packages+=(gcc libc6-dev)
command -v c++ >/dev/null || packages+=(g++)
command -v python3 >/dev/null || packages+=(python3)
command -v curl >/dev/null || packages+=(curl ca-certificates)
command -v xz >/dev/null || packages+=(xz-utils)
# The microphone of `firelight listen`, which is compiled with all features.
compgen -G '/usr/include/alsa/asoundlib.h' >/dev/null || packages+=(libasound2-dev pkg-config)
ldconfig=$(command -v ldconfig || echo /sbin/ldconfig)
"$ldconfig" -p | grep 'libvulkan\.so\.1' >/dev/null || packages+=(libvulkan1)
# Any driver will do where there is a GPU; without one it has to be lavapipe.
drivers() { compgen -G "/usr/share/vulkan/icd.d/$1" || compgen -G "/etc/vulkan/icd.d/$1"; } >/dev/null
gpu() { compgen -G '/dev/dri/renderD*' >/dev/null || [ -e /dev/nvidia0 ] || [ -e /dev/dxg ]; }
drivers 'lvp_icd*.json' || { gpu && drivers '*.json'; } || packages+=(mesa-vulkan-drivers)
[ -e /usr/lib/chromium/vk_swiftshader_icd.json ] || packages+=(chromium-common)
# The browser tests.
command -v chromium >/dev/null || command -v google-chrome >/dev/null || packages+=(chromium)
command -v npm >/dev/null || packages+=(nodejs npm)

if [ ${#packages[@]} -eq 0 ]; then
  echo "system packages: nothing is missing"
elif ! command -v apt-get >/dev/null; then
  echo "WARNING no apt-get here: please install what corresponds to: ${packages[*]}"
else
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    # -n: a step that nobody watches must not wait for a password.
    if sudo -n true 2>/dev/null; then as_root=(sudo -n); else as_root=(false); fi
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt=("${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  echo "system packages: ${packages[*]}"
  if ! { "${apt[@]}" update -q && "${apt[@]}" install -q -y --no-install-recommends "${packages[@]}"; }; then
    echo "WARNING could not install: ${packages[*]} (as root: apt-get install ${packages[*]})"
  fi
fi

for component in rustfmt clippy; do
  "cargo-${component/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$component"
done
scripts/wasm_target.sh || echo "WARNING the wasm target could not be installed"
