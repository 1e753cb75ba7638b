#!/usr/bin/env bash
# Run a command in an arm64 root under qemu; FOLDER is at /src there. As root. ENVIRONMENT="A=1 B=2" adds variables.
# Usage: cross/arm64_run.sh ROOT FOLDER COMMAND...
# The host's /sys is left out: onnxruntime crashes at import when it sees another processor's.
set -euo pipefail
root=$(realpath "${1:?usage: cross/arm64_run.sh ROOT FOLDER COMMAND...}")
folder=$(realpath "${2:?usage: cross/arm64_run.sh ROOT FOLDER COMMAND...}")
shift 2
registry=/proc/sys/fs/binfmt_misc
mountpoint -q "$registry" || mount -t binfmt_misc binfmt_misc "$registry"
[ -e "$registry/qemu-aarch64" ] || update-binfmts --enable qemu-aarch64
mkdir -p "$root/proc" "$root/dev" "$root/src" "$root/tmp"
export root folder
exec unshare --mount -- bash -euc '
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  mount --bind "$folder" "$root/src"
  # No SVE, as on Orin: with it NumPy warns of faults that are none.
  exec chroot "$root" /usr/bin/env -i -C /src HOME=/tmp PATH=/usr/bin:/bin LANG=C.UTF-8 QEMU_CPU=cortex-a76 \
    OPENBLAS_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 ${ENVIRONMENT:-} "$@"
' bash "$@"
