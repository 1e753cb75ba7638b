#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace sage {

/// Writes the device's clock, ns from a start of its own, to `*out`.
cudaError_t launch_read_clock(std::uint64_t* out, cudaStream_t stream);

}  // namespace sage
