#!/bin/bash
# Stands in a toolkit folder's bin/: clang 19 uses the option names of CUDA 12's fatbinary, this calls CUDA 13's.
set -euo pipefail
options=()
for option in "$@"; do
  file=${option#*,file=}
  case $option in
    --image=profile=sm_*,file=* | -image=profile=sm_*,file=*)
      chip=${option#*profile=sm_}
      options+=("--image3=kind=elf,sm=${chip%%,*},file=$file") ;;
    --image=profile=compute_*,file=* | -image=profile=compute_*,file=*)
      chip=${option#*profile=compute_}
      options+=("--image3=kind=ptx,sm=${chip%%,*},file=$file") ;;
    *) options+=("$option") ;;
  esac
done
exec "$(dirname "$0")/fatbinary-13" "${options[@]}"
