// The loop's own cost: microseconds per tick with an engine that does next to nothing, in every mode, beside
// a host that asks after each step and a graph of a fixed number of steps; and the CUDA calls that each mode
// makes per tick.
#include <atomic>
#include <cstring>
#include <string>

#include "bench.cuh"
#include "core/ring_memory.h"
#include "device/refine_loop.h"

#if __has_include(<cupti.h>) && !defined(SAGE_WITHOUT_CUPTI)
#include <cupti.h>
#define SAGE_COUNT_CALLS 1
#endif

namespace {

constexpr std::uint64_t kElements = 4 * 64 * 64;
constexpr std::int32_t kSlots = 8;
constexpr int kSteps = 2000;

// delta = -z / 2 and a falling energy: thread i takes elements i, i + stride, ...
__global__ void engine_kernel(const float* z, float* delta, float* energy_terms, std::uint64_t count,
                              int slots) {
  const std::uint64_t stride = static_cast<std::uint64_t>(gridDim.x) * blockDim.x;
  const std::uint64_t first = blockIdx.x * static_cast<std::uint64_t>(blockDim.x) + threadIdx.x;
  for (std::uint64_t i = first; i < count; i += stride) delta[i] = -0.5F * z[i];
  if (first < static_cast<std::uint64_t>(slots)) energy_terms[first] = fabsf(z[first * kElements]);
}

std::atomic<std::uint64_t> calls{0};

#ifdef SAGE_COUNT_CALLS
void CUPTIAPI count_call(void*, CUpti_CallbackDomain, CUpti_CallbackId, const CUpti_CallbackData* data) {
  if (data->callbackSite == CUPTI_API_ENTER) ++calls;
}

/// Counts every call of the runtime API from now on. @returns whether it does.
bool count_calls() {
  CUpti_SubscriberHandle subscriber;
  return cuptiSubscribe(&subscriber, reinterpret_cast<CUpti_CallbackFunc>(count_call), nullptr) ==
             CUPTI_SUCCESS &&
         cuptiEnableDomain(1, subscriber, CUPTI_CB_DOMAIN_RUNTIME_API) == CUPTI_SUCCESS;
}
#else
bool count_calls() { return false; }
#endif

std::shared_ptr<sage::RingSlot> mapped(std::size_t capacity) {
  auto memory = std::make_shared<sage::MappedArray<sage::RingSlot>>(capacity);
  return {memory, memory->host()};
}

struct Measured {
  double us_per_tick;
  double calls_per_tick;
  std::string mode;
  std::string reason;
};

Measured measure(sage::LoopMode mode) {
  const sage::Ring ring(1 << 16, mapped(1 << 16));
  sage::LoopShape shape;
  shape.widths = {kSlots};
  shape.rows = kSlots;
  shape.elements = kElements;
  shape.terms = 1;
  shape.ticks = 1 << 20;
  shape.step_size = 0.5F;
  shape.lo = -2.0F;
  shape.hi = 2.0F;
  sage::RefineLoop loop(shape, ring);
  const sage::BodyArrays& arrays = loop.body_arrays();
  loop.prepare(
      [&](std::int32_t width, cudaStream_t stream) {
        engine_kernel<<<64, 256, 0, stream>>>(static_cast<const float*>(arrays.z),
                                              static_cast<float*>(arrays.delta), arrays.energy_terms,
                                              static_cast<std::uint64_t>(width) * kElements, width);
        SAGE_CUDA_TRY(cudaGetLastError());
      },
      mode);
  const auto refine = [&](int steps) {
    sage::HaltPolicy policy;
    policy.eps = 0.0;
    policy.max_steps = steps;
    for (std::int32_t row = 0; row < kSlots; ++row)
      loop.hand_in(row, {static_cast<std::uint64_t>(row), policy, 0.0, 0});
    while (loop.under_way() > 0) loop.drive(10.0);
  };
  refine(50);
  std::vector<double> us;
  std::vector<double> per_tick;
  for (int round = 0; round < 7; ++round) {
    const std::uint64_t ticks = loop.ticks(), before = calls;
    const double start_us = bench::now_us();
    refine(kSteps);
    const double took = static_cast<double>(loop.ticks() - ticks);
    us.push_back((bench::now_us() - start_us) / took);
    per_tick.push_back(static_cast<double>(calls - before) / took);
  }
  return {bench::median(us), bench::median(per_tick),
          sage::kLoopModeNames[static_cast<std::size_t>(loop.mode())], loop.mode_reason()};
}

/// What a loop without halting on the device does: a step, one number to the host, a wait.
double ask_after_each_step(cudaStream_t stream, const float* z, float* delta, float* terms) {
  float energy = 0.0F;
  return bench::time_us(stream, 500, [&](int) {
    engine_kernel<<<64, 256, 0, stream>>>(z, delta, terms, kSlots * kElements, kSlots);
    SAGE_CUDA_TRY(cudaMemcpyAsync(&energy, terms, sizeof energy, cudaMemcpyDeviceToHost, stream));
    SAGE_CUDA_TRY(cudaStreamSynchronize(stream));
  });
}

/// A captured graph of as many engine passes as there are steps: no halting, no records.
double fixed_graph(cudaStream_t stream, const float* z, float* delta, float* terms) {
  constexpr int kPasses = 100;
  const sage::GraphExec exec = sage::instantiate(sage::capture(
      [&](cudaStream_t on) {
        for (int i = 0; i < kPasses; ++i)
          engine_kernel<<<64, 256, 0, on>>>(z, delta, terms, kSlots * kElements, kSlots);
      },
      stream));
  return bench::time_us(stream, 5, [&](int) { SAGE_CUDA_TRY(cudaGraphLaunch(exec.get(), stream)); }) /
         kPasses;
}

}  // namespace

int main() {
  const bool counting = count_calls();
  const sage::Stream stream = sage::make_stream();
  const sage::DeviceArray<float> z(kSlots * kElements), delta(kSlots * kElements), terms(kSlots);
  SAGE_CUDA_TRY(cudaDeviceSynchronize());
  std::printf("{\"loop\": {\"slots\": %d, \"elements\": %llu, \"modes\": [", kSlots,
              static_cast<unsigned long long>(kElements));
  for (const sage::LoopMode mode :
       {sage::LoopMode::kWhileGraph, sage::LoopMode::kHostGraphs, sage::LoopMode::kLaunches}) {
    const Measured got = measure(mode);
    std::string reason = got.reason;
    for (char& letter : reason) letter = letter == '"' || letter == '\\' || letter < ' ' ? ' ' : letter;
    std::printf("%s\n  {\"wanted\": \"%s\", \"mode\": \"%s\", \"reason\": \"%s\", \"us_per_tick\": %.3f, ",
                mode == sage::LoopMode::kWhileGraph ? "" : ",",
                sage::kLoopModeNames[static_cast<std::size_t>(mode)], got.mode.c_str(), reason.c_str(),
                got.us_per_tick);
    counting ? std::printf("\"cuda_calls_per_tick\": %.4f}", got.calls_per_tick)
             : std::printf("\"cuda_calls_per_tick\": null}");
  }
  std::printf("],\n  \"engine_alone_asking_each_step_us\": %.3f, \"engine_alone_fixed_graph_us\": %.3f}}\n",
              ask_after_each_step(stream.get(), z.data(), delta.data(), terms.data()),
              fixed_graph(stream.get(), z.data(), delta.data(), terms.data()));
}
