#include <cuda_runtime_api.h>

// csrc/device and the kernels from their own sources, by g++ over tests/csrc/emulation.
#include "check.h"
#include "core/errors.h"
#include "core/ring_memory.h"
#include "device/condition.cu"
#include "device/graphs.cpp"
#include "device/owners.cpp"
#include "device/refine_loop.cpp"
#include "kernels/exchange.cu"
#include "kernels/latent_step.cu"

namespace sage {

/// The clock's own kernel asks the GPU. Off the device the loop's time is the host's at its calibration.
cudaError_t launch_read_clock(std::uint64_t* out, cudaStream_t) {
  *out = 0;
  return cudaSuccess;
}

}  // namespace sage

using sage::HaltReason;
using sage::LoopMode;

namespace {

constexpr std::uint64_t kElements = 20;
constexpr LoopMode kModes[] = {LoopMode::kWhileGraph, LoopMode::kHostGraphs, LoopMode::kLaunches};

// One thread takes a quarter of every state: delta = -z / 2 at a step size of 1/2. The energy is |z[0]|.
__global__ void engine_kernel(const float* z, float* delta, float* energy_terms, std::int32_t slots) {
  for (std::int32_t slot = 0; slot < slots; ++slot) {
    const std::uint64_t first = static_cast<std::uint64_t>(slot) * kElements;
    for (std::uint64_t i = first; i < first + kElements; ++i) delta[i] = -0.5F * z[i];
    energy_terms[slot] = std::fabs(z[first] + 0.5F * delta[first]);
  }
}

sage::LoopShape shape_of(std::vector<std::int32_t> widths, std::int32_t rows, std::uint64_t ticks = 1000) {
  sage::LoopShape shape;
  shape.widths = std::move(widths);
  shape.rows = rows;
  shape.elements = kElements;
  shape.terms = 1;
  shape.context_bytes = {4};
  shape.ticks = ticks;
  shape.step_size = 0.5F;
  shape.lo = -8.0F;
  shape.hi = 8.0F;
  return shape;
}

/// A prepared loop and its mailbox.
struct Bench {
  Bench(const sage::LoopShape& shape, LoopMode wanted) : ring(4096), loop(shape, ring) {
    const sage::BodyArrays& arrays = loop.body_arrays();
    loop.prepare(
        [&arrays](std::int32_t width, cudaStream_t stream) {
          cudaLaunchConfig_t config = {};
          config.stream = stream;
          SAGE_CUDA_TRY(cudaLaunchKernelEx(&config, engine_kernel, static_cast<const float*>(arrays.z),
                                           static_cast<float*>(arrays.delta), arrays.energy_terms, width));
        },
        wanted);
    CHECK(loop.mode() == wanted);
    CHECK_EQ(loop.mode_reason(), "");
  }

  void hand_in(std::int32_t row, std::int32_t max_steps, double charge_us = 0.0) {
    const std::vector<float> first(kElements, 1.0F + static_cast<float>(row));
    loop.copy(loop.row(0, row), first.data(), kElements * sizeof(float));
    loop.copy(loop.first_terms() + row, first.data(), sizeof(float));
    loop.wait_copies();
    sage::HaltPolicy policy;
    policy.eps = 0.0;
    policy.max_steps = max_steps;
    loop.hand_in(row, {static_cast<std::uint64_t>(row), policy, charge_us, 0});
  }

  bool holds(const float* state, std::int32_t row, std::uint32_t steps) const {
    float expected = 1.0F + static_cast<float>(row);
    for (std::uint32_t step = 0; step < steps; ++step) expected += 0.5F * (-0.5F * expected);
    return std::all_of(state, state + kElements, [=](float value) { return value == expected; });
  }

  sage::Ring ring;
  sage::RefineLoop loop;
};

}  // namespace

TEST("in every mode every request takes its own steps, and its row holds its best state") {
  for (const LoopMode mode : kModes) {
    Bench bench(shape_of({1, 3}, 6), mode);
    std::int32_t handed_in = 0;
    std::vector<std::int32_t> steps_of(6);
    std::vector<std::int32_t> free = {0, 1, 2, 3, 4, 5};
    std::size_t answered = 0;
    while (answered < 20) {
      for (; !free.empty() && handed_in < 20; free.pop_back(), ++handed_in) {
        steps_of[static_cast<std::size_t>(free.back())] = handed_in % 7;
        bench.hand_in(free.back(), handed_in % 7);
      }
      for (const std::int32_t row : bench.loop.drive(1.0)) {
        const auto steps = static_cast<std::uint32_t>(steps_of[static_cast<std::size_t>(row)]);
        CHECK_EQ(bench.loop.outcome(row).step_idx(), steps);
        CHECK(bench.loop.outcome(row).halt_reason() == HaltReason::kMaxSteps);
        CHECK(bench.holds(static_cast<const float*>(bench.loop.row(0, row)), row, steps));
        free.push_back(row);
        ++answered;
      }
    }
    CHECK_EQ(bench.loop.under_way(), 0);
    CHECK_EQ(bench.loop.live(), 0U);
  }
}

TEST("in every mode a peek shows the best state so far, and the run goes on as if nobody had looked") {
  for (const LoopMode mode : kModes) {
    Bench bench(shape_of({2}, 3, 2), mode);
    for (std::int32_t row = 0; row < 3; ++row) bench.hand_in(row, 9);
    CHECK(bench.loop.drive(0.0).empty());
    std::vector<float> best(kElements);
    const std::optional<sage::Run> run = bench.loop.peek(1, best.data());
    CHECK(run && run->running());
    CHECK(bench.holds(best.data(), 1, run->step_idx()));
    CHECK(!bench.loop.peek(2, best.data()));  // it waits for a slot
    std::vector<std::int32_t> done;
    while (bench.loop.under_way() > 0) {
      for (const std::int32_t row : bench.loop.drive(1.0)) done.push_back(row);
    }
    CHECK_EQ(done.size(), 3U);
    CHECK(!bench.loop.peek(1, best.data()));
    for (std::int32_t row = 0; row < 3; ++row) {
      CHECK_EQ(bench.loop.outcome(row).step_idx(), 9U);
      CHECK(bench.holds(static_cast<const float*>(bench.loop.row(0, row)), row, 9));
    }
  }
}

TEST("in every mode stops, limits and budgets reach those in slots and those who wait") {
  for (const LoopMode mode : kModes) {
    Bench bench(shape_of({1, 2}, 4, 2), mode);
    for (std::int32_t row = 0; row < 4; ++row) bench.hand_in(row, 1 << 20, 5.0);
    CHECK(bench.loop.drive(0.0).empty());
    bench.loop.stop(3, HaltReason::kCancelled);
    bench.loop.stop(0, HaltReason::kGlobalHalt);
    bench.loop.set_budget(1, 4.0);
    std::vector<bool> done(4);
    const auto drive = [&] {
      for (const std::int32_t row : bench.loop.drive(1.0)) done[static_cast<std::size_t>(row)] = true;
    };
    while (!done[0] || !done[1] || !done[3]) drive();
    CHECK(!done[2]);
    CHECK(bench.loop.outcome(0).halt_reason() == HaltReason::kGlobalHalt);
    CHECK(bench.loop.outcome(1).halt_reason() == HaltReason::kBudget);
    CHECK(bench.loop.outcome(3).halt_reason() == HaltReason::kCancelled);
    CHECK_EQ(bench.loop.outcome(3).step_idx(), 0U);
    bench.loop.limit(2, 1, std::numeric_limits<std::int64_t>::max());
    while (!done[2]) drive();
    CHECK(bench.loop.outcome(2).halt_reason() == HaltReason::kMaxSteps);
    CHECK_EQ(bench.loop.under_way(), 0);
  }
}

TEST("a pass of the engine can be timed before anybody is there, and leaves no record") {
  Bench bench(shape_of({1, 3}, 3), LoopMode::kWhileGraph);
  CHECK(bench.loop.measure_body_ns(3) > 0);
  CHECK_EQ(bench.loop.ticks(), 0U);
  sage::Record record;
  CHECK_EQ(sage::RingReader(bench.ring.span()).drain(&record, 1), 0U);
}

TEST("a row is handed in once, and must be one") {
  Bench bench(shape_of({1}, 2), LoopMode::kLaunches);
  bench.hand_in(1, 3);
  CHECK_THROWS(sage::ConfigError, bench.hand_in(1, 3));
  CHECK_THROWS(sage::ConfigError, bench.loop.set_budget(2, 1.0));
  CHECK_THROWS(sage::ConfigError, bench.loop.peek(-1, nullptr));
}

TEST("an engine that enqueues nothing is not captured, and the reason is kept") {
  const sage::Ring ring(64);
  sage::RefineLoop loop(shape_of({1}, 1), ring);
  loop.prepare([](std::int32_t, cudaStream_t) {}, LoopMode::kWhileGraph);
  CHECK(loop.mode() == LoopMode::kLaunches);
  CHECK(loop.mode_reason().find("captured nothing") != std::string::npos);
}
