#!/usr/bin/env bash
# Cross-compile the wheel for aarch64 and one Python version.
# Usage: cross/arm64_wheel.sh PYTHON HEADERS FOLDER [COMPILER FLAG...]
#   PYTHON   of that version, on this machine, with pip
#   HEADERS  Python's headers for aarch64. Those of this machine's own Python of that version will do on Linux of 64 bits.
#   SAGE_CUDA  AUTO (where there is nvcc), ON or OFF
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:?usage: cross/arm64_wheel.sh PYTHON HEADERS FOLDER [COMPILER FLAG...]}
headers=${2:?missing HEADERS}
folder=${3:?missing FOLDER}
shift 3
abi=cpython-$("$python" -c 'import sys; print("%d%d" % sys.version_info[:2])')-aarch64-linux-gnu
arguments=(
  "-DCMAKE_TOOLCHAIN_FILE=$PWD/cross/aarch64.cmake"
  -DPYBIND11_FINDPYTHON=ON
  "-DPython_INCLUDE_DIR=$headers"
  "-DPython_SOABI=$abi"
  "-DPYTHON_MODULE_EXTENSION=.$abi.so"
  "-DCMAKE_CXX_FLAGS=$*"
)
if [ "${SAGE_CUDA:-AUTO}" = AUTO ]; then
  SAGE_CUDA=$(PATH=$PATH:/usr/local/cuda/bin command -v nvcc >/dev/null && echo ON || echo OFF)
fi
if [ "$SAGE_CUDA" = ON ]; then
  cross/arm64_cuda.sh "$python" build/arm64/cuda
  export CUDACXX=$PWD/build/arm64/cuda/bin/nvcc
fi
_PYTHON_HOST_PLATFORM=linux-aarch64 SAGE_CUDA=$SAGE_CUDA SKBUILD_CMAKE_ARGS=$(IFS=';'; echo "${arguments[*]}") \
  "$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder" .

# JetPack 6 is Ubuntu 22.04: its glibc is 2.35 and its libstdc++ that of gcc 12.
"$python" - "$folder" "$abi" <<'PY'
import pathlib, re, subprocess, sys, tempfile, zipfile
folder, abi = sys.argv[1:]
with tempfile.TemporaryDirectory() as unpacked:
    [wheel] = pathlib.Path(folder).glob(f"*-cp{abi.split('-')[1]}-*_aarch64.whl")
    zipfile.ZipFile(wheel).extractall(unpacked)
    modules = sorted(pathlib.Path(unpacked, "sage_edge").glob("*.so"))
    read = lambda option: subprocess.run(["aarch64-linux-gnu-readelf", option, *modules], capture_output=True, text=True, check=True).stdout
    assert read("-h").count("AArch64") == len(modules) > 0, "not modules for aarch64"
    needed = {(name, tuple(map(int, version.split(".")))) for name, version in re.findall(r"(GLIBC|GLIBCXX)_([\d.]+)", read("-V"))}
newest = {name: max(version for kind, version in needed if kind == name) for name in ("GLIBC", "GLIBCXX")}
assert newest["GLIBC"] <= (2, 35) and newest["GLIBCXX"] <= (3, 4, 30), f"JetPack 6 has no {newest}"
print(wheel.name, "with", " and ".join(module.name.split(".")[0] for module in modules), "needs", ", ".join(f"{name} {'.'.join(map(str, version))}" for name, version in newest.items()))
PY
