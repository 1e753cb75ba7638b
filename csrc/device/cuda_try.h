#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace sage {

/// A CUDA call that failed: the call, where it stands, and CUDA's own words.
struct CudaError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// @throws CudaError unless `status` is cudaSuccess.
inline void require_cuda(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  throw CudaError(std::string(call) + " at " + file + ":" + std::to_string(line) +
                  ": expected success, got " + cudaGetErrorName(status) + " (" + cudaGetErrorString(status) +
                  ")");
}

}  // namespace sage

#define SAGE_CUDA_TRY(call) ::sage::require_cuda((call), #call, __FILE__, __LINE__)
