#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <random>
#include <vector>

#include "device/owners.h"

// What the GPU benchmarks share. Each writes one JSON object to stdout.
namespace bench {

inline double now_us() {
  using namespace std::chrono;
  return duration<double, std::micro>(steady_clock::now().time_since_epoch()).count();
}

inline double quantile(std::vector<double> values, double q) {
  const auto at = static_cast<std::ptrdiff_t>(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<std::size_t>(at)];
}

inline double median(const std::vector<double>& values) { return quantile(values, 0.5); }

/// Median microseconds of one of `repeats` calls, by events around all of them, after a warm-up.
inline double time_us(cudaStream_t stream, int repeats, const std::function<void(int)>& call) {
  cudaEvent_t start, stop;
  SAGE_CUDA_TRY(cudaEventCreate(&start));
  SAGE_CUDA_TRY(cudaEventCreate(&stop));
  for (int i = 0; i < 3; ++i) call(i);
  std::vector<double> rounds;
  for (int round = 0; round < 15; ++round) {
    SAGE_CUDA_TRY(cudaEventRecord(start, stream));
    for (int i = 0; i < repeats; ++i) call(i);
    SAGE_CUDA_TRY(cudaEventRecord(stop, stream));
    SAGE_CUDA_TRY(cudaEventSynchronize(stop));
    float ms = 0.0F;
    SAGE_CUDA_TRY(cudaEventElapsedTime(&ms, start, stop));
    rounds.push_back(1e3 * static_cast<double>(ms) / repeats);
  }
  SAGE_CUDA_TRY(cudaEventDestroy(start));
  SAGE_CUDA_TRY(cudaEventDestroy(stop));
  return median(rounds);
}

}  // namespace bench
