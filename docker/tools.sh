#!/usr/bin/env bash
# Install from Debian what a set of checks needs, unless it is there. As root. Usage: docker/tools.sh image|arm64
set -euo pipefail
declare -A tools=([image]="podman mmdebstrap prometheus" [arm64]="mmdebstrap qemu-aarch64-static aarch64-linux-gnu-g++")
declare -A packages=(
  [image]="podman runc netavark iptables catatonit mmdebstrap prometheus"
  [arm64]="mmdebstrap qemu-user-static g++-aarch64-linux-gnu"
)
topic=${1:?usage: docker/tools.sh image|arm64}
for tool in ${tools[$topic]:?unknown topic: image or arm64}; do
  command -v "$tool" >/dev/null || missing=yes
done
[ -n "${missing:-}" ] || exit 0
echo "==> installing what the $topic checks need"
apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ${packages[$topic]} >/dev/null
