#!/usr/bin/env bash
# Make a Debian 12 arm64 file system with Python 3.11 by unpacking packages only: no maintainer script, no emulation.
# As root. Usage: cross/arm64_root.sh FOLDER
set -euo pipefail
folder=${1:?usage: cross/arm64_root.sh FOLDER}
packages=base-files,base-passwd,bash,dash,coreutils,sed,grep,libc-bin,libstdc++6,libgcc-s1,curl,python3,libpython3-dev
mmdebstrap --quiet --arch=arm64 --variant=extract --include="$packages" \
  bookworm "$folder" /etc/apt/sources.list.d/debian.sources
# What a maintainer script would have written, and what programs of the kernel's other word need to start.
printf 'root:x:0:0:root:/root:/bin/bash\n' >"$folder/etc/passwd"
printf 'root:x:0:\n' >"$folder/etc/group"
