#include "device/clock.cuh"

namespace sage {

namespace {

__global__ void read_clock_kernel(std::uint64_t* out) {
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(*out));
}

}  // namespace

cudaError_t launch_read_clock(std::uint64_t* out, cudaStream_t stream) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(1);
  config.blockDim = dim3(1);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, read_clock_kernel, out);
}

}  // namespace sage
