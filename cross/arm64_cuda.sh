#!/usr/bin/env bash
# Put together a CUDA toolkit that cross-compiles for aarch64: this machine's nvcc and headers, and the runtime library from
# NVIDIA's aarch64 wheel, which is the one for servers: boards have their own, and nothing here needs it to load.
# Usage: cross/arm64_cuda.sh PYTHON FOLDER      with CUDA 13
set -euo pipefail
python=${1:?usage: cross/arm64_cuda.sh PYTHON FOLDER}
folder=$(realpath --canonicalize-missing "${2:?usage: cross/arm64_cuda.sh PYTHON FOLDER}")
export PATH=$PATH:/usr/local/cuda/bin
# Where nvcc itself is: on the PATH may be a script that leads to it.
here=$(nvcc --dryrun x.cu 2>&1 | sed -n 's/^#\$ _HERE_=//p')
version=$(nvcc --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
target=$folder/targets/aarch64-linux
rm -rf "$folder"
mkdir -p "$folder/bin" "$target/lib"
"$python" -m pip install --quiet --no-deps --only-binary=:all: --platform=manylinux_2_17_aarch64 \
  --target="$folder/runtime" "nvidia-cuda-runtime==$version.*"
# Links to files, not to folders: nvcc looks for the rest of its toolkit beside the folder that it was called in.
ln -s "$here"/* "$folder/bin/"
ln -s "$here/../nvvm" "$folder/nvvm"
ln -s "$here/../include" "$target/include"
ln -s "$folder"/runtime/nvidia/cu*/lib/* "$target/lib/"
ln -s "$target"/lib/libcudart.so.* "$target/lib/libcudart.so"
