#!/usr/bin/env bash
# Cross-compile for aarch64: the C++ tests, and the wheel, which a real aarch64 Python then imports and tests under qemu.
# As root on Debian 12. Usage: cross/arm64_test.sh PYTHON [PYTEST ARGUMENT...]
#   PYTHON     this machine's Python 3.11 with cmake, ninja and pip: it builds what the root's Python 3.11 loads
#   SAGE_CUDA  AUTO (with the CUDA module where there is nvcc), ON or OFF
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath --no-symlinks "${1:?usage: cross/arm64_test.sh PYTHON [PYTEST ARGUMENT...]}")
shift
"$python" -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "expected Python 3.11, as in Debian 12")'
work=$PWD/build/arm64
root=$work/root
bin=$(dirname "$python")
mkdir -p "$work"
say() { echo "==> [+${SECONDS}s] $*"; }

say "C++ tests, aarch64"
options=(-DSAGE_CUDA=OFF -DCMAKE_TOOLCHAIN_FILE="$PWD/cross/aarch64.cmake" -DSAGE_PYTHON=OFF -DSAGE_TESTS=ON
         -DCMAKE_MAKE_PROGRAM="$bin/ninja" -G Ninja --log-level=WARNING)
"$bin/cmake" -S . -B "$work/ctest" "${options[@]}"
"$bin/cmake" --build "$work/ctest"
"$bin/ctest" --test-dir "$work/ctest" --output-on-failure --timeout 300

[ -x "$root/usr/bin/python3" ] || cross/arm64_root.sh "$root"
say "aarch64 root with $(readlink "$root/usr/bin/python3")"

# The root's own headers, copied so that no other header of the root comes with them.
include=$work/include
mkdir -p "$include/aarch64-linux-gnu"
cp -r "$root/usr/include/python3.11" "$include/"
cp -r "$root/usr/include/aarch64-linux-gnu/python3.11" "$include/aarch64-linux-gnu/"
cross/arm64_wheel.sh "$python" "$include/python3.11" "$work/wheel" "-I$include"
say "wheel $(cd "$work/wheel" && echo *-cp311-*.whl)"

"$python" cross/arm64_packages.py "$root/site"
"$python" -m zipfile --extract "$work"/wheel/*-cp311-*_aarch64.whl "$root/site"
say "packages"

# A safe path: the wheel is tested, not the source tree, also by the processes that tests start. Other tests are excluded by
# the markers of pyproject.toml.
ENVIRONMENT="PYTHONPATH=/site PYTHONSAFEPATH=1" timeout 900 cross/arm64_run.sh "$root" . \
  python3 -m pytest -q -p no:cacheprovider -o pythonpath= --rootdir /src \
  -m "not training and not container and not heavy" tests/sage_edge tests/contract "$@"
say "Python tests, aarch64"
