#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// The kernels that set a WHILE condition, in a module of their own: a driver from before CUDA 12.4 cannot
// load them, and must still load the others.
namespace sage {

/// Sets the condition to whether `*go_on` is not 0.
cudaError_t launch_set_condition(cudaGraphConditionalHandle condition, const std::uint32_t* go_on,
                                 cudaStream_t stream);

/// Takes 1 from `*left`, and sets the condition to whether something is left.
cudaError_t launch_count_down(cudaGraphConditionalHandle condition, std::uint32_t* left, cudaStream_t stream);

}  // namespace sage
