#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/half.h"
#include "kernels/slot_loop.h"

namespace sage {

/// The states of all slots on the device and what one tick does to them; see latent_step.h for the formulas.
/// T is float or Half; arithmetic is in float. Rows begin at multiples of 16 bytes or are read one by one.
template <class T>
struct DeviceRows {
  T* z;                    ///< [capacity, elements], the states
  const T* delta;          ///< [capacity, elements], the step engine's directions
  T* best;                 ///< [capacity, elements]; the best state is in z while run.best_is_current()
  const float* step_size;  ///< [capacity]
  float noise_sigma;
  std::uint64_t seed;
  float lo;
  float hi;
  ChunkSums* chunk_sums;    ///< [capacity, chunks(elements)]
  std::uint32_t* arrivals;  ///< [capacity + 1], zero between launches
};

constexpr std::uint32_t chunks(std::uint64_t elements) {
  return static_cast<std::uint32_t>((elements + kChunk - 1) / kChunk);
}

/// Before the first tick of a launch: one thread looks at what has changed. An exchange must follow.
cudaError_t launch_begin(const Loop& loop, const Width& width, cudaStream_t stream);

/// One tick of the slots below `width.slots`, in one launch: update, noise, bounds, sums, energy, halting,
/// trust, records, and who leaves and arrives. An exchange must follow.
///
/// A state that is its run's best is saved to `best` before it is overwritten: where the CPU twin looks first
/// whether the next one is better, a second pass over delta would cost as much as the copy.
///
/// Bits: do not depend on the order of the blocks; states are those of the CPU twin, sums are added in
/// another order.
/// @returns what the launch returned.
template <class T>
cudaError_t launch_latent_step(const DeviceRows<T>& rows, const Loop& loop, const Width& width,
                               cudaStream_t stream);

}  // namespace sage
