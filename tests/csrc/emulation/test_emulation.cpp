#include <cuda_runtime.h>

#include <stdexcept>
#include <vector>

#include "check.h"

// The emulation itself: it must catch what it is there to catch.

namespace {

template <class Kernel, class... Arguments>
void launch(Kernel kernel, dim3 grid, unsigned threads, Arguments... arguments) {
  cudaLaunchConfig_t config;
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  cudaLaunchKernelEx(&config, kernel, arguments...);
}

__global__ void rank_kernel(int* out) {
  out[(blockIdx.y * gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x] = static_cast<int>(threadIdx.x);
}

__global__ void warp_sum_kernel(float* out) {
  float value = static_cast<float>(threadIdx.x);
  for (unsigned step = 16; step > 0; step /= 2) value += __shfl_down_sync(~0U, value, step);
  if (threadIdx.x % 32 == 0) out[threadIdx.x / 32] = value;
}

template <bool kSync>
__global__ void reverse_kernel(int* out) {
  __shared__ int values[64];
  values[threadIdx.x] = 0;
  if (kSync) __syncthreads();
  values[63 - threadIdx.x] += static_cast<int>(threadIdx.x);
  if (kSync) __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}

__global__ void half_a_barrier_kernel() {
  if (threadIdx.x < 10) __syncthreads();
}

__global__ void order_kernel(std::vector<unsigned>* seen) { seen->push_back(blockIdx.x); }

}  // namespace

TEST("every thread of every block runs once") {
  std::vector<int> out(3 * 2 * 70, -1);
  launch(rank_kernel, dim3(3, 2), 70, out.data());
  for (std::size_t i = 0; i < out.size(); ++i) CHECK_EQ(out[i], static_cast<int>(i % 70));
}

TEST("a warp adds up its own lanes") {
  std::vector<float> out(2);
  launch(warp_sum_kernel, dim3(1), 64, out.data());
  CHECK_EQ(out[0], 496.0F);
  CHECK_EQ(out[1], 1520.0F);
}

TEST("a missing barrier shows, and a barrier mends it") {
  int faults = 0;
  for (emulation::seed = 1; emulation::seed < 6; ++emulation::seed) {
    std::vector<int> with(64), without(64);
    launch(reverse_kernel<true>, dim3(1), 64, with.data());
    launch(reverse_kernel<false>, dim3(1), 64, without.data());
    for (int i = 0; i < 64; ++i) {
      CHECK_EQ(with[static_cast<std::size_t>(i)], 63 - i);
      faults += without[static_cast<std::size_t>(i)] != 63 - i ? 1 : 0;
    }
  }
  CHECK(faults > 0);
}

TEST("threads that wait for others that have gone are a fault") {
  CHECK_THROWS(std::logic_error, launch(half_a_barrier_kernel, dim3(1), 32));
}

TEST("blocks come in an order that depends on the seed") {
  std::vector<unsigned> first, second;
  emulation::seed = 1;
  launch(order_kernel, dim3(20), 1, &first);
  emulation::seed = 2;
  launch(order_kernel, dim3(20), 1, &second);
  CHECK_EQ(first.size(), 20U);
  CHECK(first != second);
}
