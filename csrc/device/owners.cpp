#include "device/owners.h"

#include <cstring>

namespace sage {

MappedPointers allocate_mapped(std::size_t size_bytes) {
  MappedPointers pointers{};
  SAGE_CUDA_TRY(cudaHostAlloc(&pointers.host, size_bytes, cudaHostAllocMapped | cudaHostAllocPortable));
  std::memset(pointers.host, 0, size_bytes);
  const cudaError_t status = cudaHostGetDevicePointer(&pointers.device, pointers.host, 0);
  if (status != cudaSuccess) static_cast<void>(cudaFreeHost(pointers.host));
  SAGE_CUDA_TRY(status);
  return pointers;
}

}  // namespace sage
