#include "device/condition.cuh"

namespace sage {

namespace {

__global__ void set_condition_kernel(cudaGraphConditionalHandle condition, const std::uint32_t* go_on) {
  cudaGraphSetConditional(condition, *go_on != 0 ? 1U : 0U);
}

__global__ void count_down_kernel(cudaGraphConditionalHandle condition, std::uint32_t* left) {
  *left -= 1;
  cudaGraphSetConditional(condition, *left != 0 ? 1U : 0U);
}

cudaLaunchConfig_t one_thread(cudaStream_t stream) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(1);
  config.blockDim = dim3(1);
  config.stream = stream;
  return config;
}

}  // namespace

cudaError_t launch_set_condition(cudaGraphConditionalHandle condition, const std::uint32_t* go_on,
                                 cudaStream_t stream) {
  const cudaLaunchConfig_t config = one_thread(stream);
  return cudaLaunchKernelEx(&config, set_condition_kernel, condition, go_on);
}

cudaError_t launch_count_down(cudaGraphConditionalHandle condition, std::uint32_t* left,
                              cudaStream_t stream) {
  const cudaLaunchConfig_t config = one_thread(stream);
  return cudaLaunchKernelEx(&config, count_down_kernel, condition, left);
}

}  // namespace sage
