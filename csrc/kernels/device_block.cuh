#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/latent_math.h"

// What the threads of a block do together. Every sum has one order, so that it has the same bits every run.
namespace sage {

inline constexpr int kThreads = 256;  ///< of every block
inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFU;

/// The sum over the lanes of a warp, in lane 0.
template <class T>
__device__ inline T sum_warp(T value) {
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_down_sync(kAllLanes, value, step);
  return value;
}

/// The sums over a block, in thread 0. Each warp is added up as `T`, the warps in double. All threads call
/// it.
template <class T>
__device__ inline ChunkSums sum_block(T change, T state) {
  __shared__ ChunkSums warps[kThreads / kWarp];
  change = sum_warp(change);
  state = sum_warp(state);
  __syncthreads();  // a call before this one has been read
  if (threadIdx.x % kWarp == 0) {
    warps[threadIdx.x / kWarp] = {static_cast<double>(change), static_cast<double>(state)};
  }
  __syncthreads();
  ChunkSums total = warps[0];
  for (int warp = 1; warp < kThreads / kWarp; ++warp) {
    total.change += warps[warp].change;
    total.state += warps[warp].state;
  }
  return total;
}

/// Whether this block is the last of `count` to come here; what the others wrote before is then visible. The
/// counter is back at 0 afterwards. All threads call it.
__device__ inline bool last_to_arrive(std::uint32_t* counter, std::uint32_t count) {
  __shared__ bool last;
  __syncthreads();  // everybody has written, and has read an earlier answer
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(counter, 1U) == count - 1;
    if (last) *counter = 0;
    __threadfence();
  }
  __syncthreads();
  return last;
}

}  // namespace sage
