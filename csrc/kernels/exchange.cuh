#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/slot_loop.h"

namespace sage {

inline constexpr std::int32_t kMostArrays = 8;

/// The rows of one array, in the slots and in the store.
struct RowArray {
  unsigned char* slots;  ///< [capacity, row_bytes]
  unsigned char* store;  ///< [rows, row_bytes]
  std::uint64_t row_bytes;
};

/// What belongs to a request: its state first, then what the step engine reads besides.
struct RowArrays {
  RowArray arrays[kMostArrays];  ///< the first one is z
  std::int32_t count;
  unsigned char* best;      ///< [capacity, row_bytes of z]
  std::uint32_t* arrivals;  ///< [capacity], zero between launches
};

/// Carries out the orders that the deciding thread left in the first `slots` slots: states that moved to
/// another slot, best states back to the store, first states out of it. Then the host may see who is done.
cudaError_t launch_exchange(const RowArrays& rows, const Loop& loop, std::int32_t slots, cudaStream_t stream);

}  // namespace sage
