#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "check.h"
#include "core/ring_memory.h"
#include "kernels/latent_math.h"
#include "kernels/latent_step.h"

using sage::HaltReason;

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// Slots with random states, and one tick to run on them.
struct Bench {
  Bench(std::size_t capacity, std::size_t elements, std::uint32_t seed = 1)
      : ring(1024),
        slots(capacity, ring.writer(), 0),
        z(capacity * elements),
        delta(z.size()),
        best(z.size(), -7.0F),
        step_size(capacity, 0.5F),
        energy(capacity, 0.5F),
        reasons(capacity) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (float& value : z) value = normal(random);
    for (float& value : delta) value = normal(random);
    rows = {z.data(), delta.data(), best.data(), elements};
    tick.step_size = step_size.data();
    tick.energy_terms = energy.data();
    tick.terms = 1;
    tick.lo = -2.0F;
    tick.hi = 2.0F;
  }

  void admit(std::uint64_t run_id, double E0) {
    sage::HaltPolicy policy;
    policy.eps = 0.0;
    slots.admit(run_id, policy, 0, sage::Observation{E0});
  }

  void step(sage::ThreadPool* pool = nullptr) { sage::latent_step(slots, rows, tick, pool, reasons.data()); }

  std::vector<float> row(const std::vector<float>& values, std::size_t slot) const {
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(slot * rows.elements);
    return {first, first + static_cast<std::ptrdiff_t>(rows.elements)};
  }

  sage::Ring ring;
  sage::SlotTable slots;
  std::vector<float> z, delta, best, step_size, energy;
  std::vector<HaltReason> reasons;
  sage::LatentRows rows{};
  sage::TickInputs tick{};
};

}  // namespace

TEST("a step moves, clamps and measures, whatever the size") {
  for (const std::size_t elements : {1U, 2U, 15U, 16U, 17U, 4095U, 4096U, 4097U, 10007U}) {
    Bench bench(1, elements);
    bench.admit(1, 1.0);
    bench.tick.residual_weight = 0.25;
    const std::vector<float> before = bench.z;
    bench.step();
    double change = 0.0;
    double state = 0.0;
    for (std::size_t i = 0; i < elements; ++i) {
      const float expected = std::clamp(before[i] + 0.5F * bench.delta[i], -2.0F, 2.0F);
      CHECK_EQ(bench.z[i], expected);
      change += std::pow(static_cast<double>(expected) - static_cast<double>(before[i]), 2);
      state += std::pow(static_cast<double>(expected), 2);
    }
    const sage::Run& run = bench.slots.run(0);
    // The change is a float difference, and its squares are added in floats over at most 256 terms a lane.
    CHECK_NEAR(run.residual(), std::sqrt(change / state), 1e-5 * run.residual());
    CHECK_NEAR(run.E(), 0.5 + 0.25 * change / static_cast<double>(elements), 1e-5);
  }
}

TEST("states beyond the live slots and runs that have ended are left alone") {
  Bench bench(3, 40);
  bench.admit(1, 1.0);
  bench.admit(2, 1.0);
  bench.slots.close(0, HaltReason::kCancelled, 0);
  const std::vector<float> before = bench.z;
  bench.tick.tick_us = 8.0;
  bench.step();
  CHECK(bench.row(bench.z, 0) == bench.row(before, 0));
  CHECK(bench.row(bench.z, 1) != bench.row(before, 1));
  CHECK(bench.row(bench.z, 2) == bench.row(before, 2));
  CHECK(bench.reasons[0] == HaltReason::kCancelled);
  CHECK(bench.reasons[1] == HaltReason::kRunning);
  CHECK_EQ(bench.slots.run(1).spent_us(), 8.0);
}

TEST("the best state is saved only when it is about to be lost") {
  Bench bench(1, 33);
  bench.admit(1, 1.0);
  bench.energy[0] = 0.5F;
  bench.step();
  CHECK(bench.slots.run(0).best_is_current());
  CHECK_EQ(bench.best[0], -7.0F);
  const std::vector<float> good = bench.z;
  bench.energy[0] = 0.9F;
  bench.step();
  CHECK(bench.best == good);
  bench.step();
  CHECK(bench.best == good);
  bench.energy[0] = 0.1F;
  bench.step();
  CHECK(bench.slots.run(0).best_is_current());
}

TEST("the answer is the best state seen, a feasible one before any other, in every order of three") {
  const double energies[] = {0.1, 0.2, 0.3, static_cast<double>(kNaN)};
  for (const double residual_weight : {0.0, 1e-3}) {
    for (int order = 0; order < 2 * 8 * 8 * 8; ++order) {
      Bench bench(1, 37);
      bench.tick.residual_weight = residual_weight;
      std::uint8_t feasible = order % 2 == 0 ? 1 : 0;
      sage::Observation first{0.15};
      first.feasible = feasible != 0;
      bench.tick.feasible = &feasible;
      sage::HaltPolicy policy;
      policy.eps = 0.0;
      bench.slots.admit(1, policy, 0, first);
      const sage::Run& run = bench.slots.run(0);
      std::pair<bool, double> best_rank = {feasible == 0, 0.15};
      std::vector<float> best = bench.z;
      for (int tick = 0, rest = order / 2; tick < 3 && run.running(); ++tick, rest /= 8) {
        bench.energy[0] = static_cast<float>(energies[rest % 4]);
        feasible = rest % 8 < 4 ? 1 : 0;
        bench.step();
        const std::pair<bool, double> rank = {feasible == 0, run.E()};
        if (std::isfinite(run.E()) && rank < best_rank) {
          best_rank = rank;
          best = bench.z;
        }
        CHECK((run.best_is_current() ? bench.z : bench.best) == best);
        CHECK_EQ(run.best_E(), best_rank.second);
      }
    }
  }
}

TEST("a gap that is closed ends the run of a feasible state") {
  Bench bench(2, 3);
  sage::HaltPolicy policy;
  policy.eps = 0.0;
  policy.halt_when_feasible = true;
  policy.gap_tolerance = 0.5;
  sage::Observation first{1.0};
  first.gap = 1.0;
  for (std::uint64_t id = 0; id < 2; ++id) bench.slots.admit(id, policy, 0, first);
  const double gap[] = {0.5, 0.6};
  bench.tick.gap = gap;
  bench.step();
  CHECK(bench.reasons[0] == HaltReason::kFeasible);
  CHECK(bench.reasons[1] == HaltReason::kRunning);
}

TEST(
    "a delta that is not finite ends the run, and the best state before survives even if the energy looks "
    "good") {
  for (const float poison : {kNaN, std::numeric_limits<float>::infinity()}) {
    for (const double residual_weight : {0.0, 1.0}) {
      Bench bench(2, 5000);
      bench.admit(1, 1.0);
      bench.admit(2, 1.0);
      bench.tick.residual_weight = residual_weight;
      const std::vector<float> before = bench.z;
      bench.delta[4999] = poison;
      bench.tick.hi = std::numeric_limits<float>::infinity();
      bench.step();
      CHECK(bench.reasons[0] == HaltReason::kDiverged);
      CHECK(bench.row(bench.best, 0) == bench.row(before, 0));
      CHECK(bench.reasons[1] == HaltReason::kRunning);
    }
  }
}

TEST("a step size that is not finite, or an overflow, does not cost the best state") {
  Bench infinite(1, 50);
  infinite.admit(1, 1.0);
  const std::vector<float> before = infinite.z;
  infinite.delta[3] = 0.0F;
  infinite.step_size[0] = std::numeric_limits<float>::infinity();
  infinite.step();
  CHECK(infinite.reasons[0] == HaltReason::kDiverged);
  CHECK(infinite.best == before);

  Bench overflowing(1, 50);
  overflowing.admit(1, 1.0);
  overflowing.tick.hi = std::numeric_limits<float>::max();
  overflowing.delta[3] = 1e30F;
  overflowing.step();
  CHECK(overflowing.reasons[0] == HaltReason::kDiverged);
  CHECK(overflowing.best == before);
}

TEST("a state that came in as NaN is handed back itself, never another run's best") {
  Bench bench(1, 50);
  bench.z[7] = kNaN;
  bench.admit(1, 1.0);
  bench.step();
  CHECK(bench.reasons[0] == HaltReason::kDiverged);
  CHECK(std::isnan(bench.best[7]));
  CHECK_EQ(bench.best[0], bench.z[0]);
}

TEST("the bits depend neither on threads nor on the slot nor on the neighbours") {
  constexpr std::size_t kElements = 300'001;  // enough to wake the pool
  const auto outcome = [](std::size_t slot, sage::ThreadPool* pool) {
    Bench bench(slot + 1, kElements);
    Bench reference(1, kElements, 99);
    std::copy(reference.z.begin(), reference.z.end(),
              bench.z.begin() + static_cast<std::ptrdiff_t>(slot * kElements));
    std::copy(reference.delta.begin(), reference.delta.end(),
              bench.delta.begin() + static_cast<std::ptrdiff_t>(slot * kElements));
    for (std::size_t other = 0; other < slot; ++other) bench.admit(100 + other, 1.0);
    bench.admit(5, 1.0);
    bench.tick.residual_weight = 1.0;
    bench.tick.noise_sigma = 0.1F;
    bench.tick.seed = 12345;
    for (int step = 0; step < 2; ++step) bench.step(pool);
    const sage::Run& run = bench.slots.run(slot);
    std::vector<double> numbers = {run.E(), run.residual(), run.trust().dE_variance()};
    const std::vector<float> z = bench.row(bench.z, slot);
    numbers.insert(numbers.end(), z.begin(), z.end());
    return numbers;
  };
  const std::vector<double> alone = outcome(0, nullptr);
  for (const std::size_t threads : {1U, 2U, 3U, 5U}) {
    sage::ThreadPool pool(threads);
    CHECK(outcome(0, &pool) == alone);
    CHECK(outcome(2, &pool) == alone);
  }
}

TEST("the noise of an element depends on its place in the row, not on how the row is cut") {
  Bench bench(1, 10'000);
  std::fill(bench.z.begin(), bench.z.end(), 0.0F);
  std::fill(bench.delta.begin(), bench.delta.end(), 0.0F);
  bench.admit(77, 1.0);
  bench.tick.noise_sigma = 0.125F;
  bench.tick.seed = 9;
  bench.step();
  std::vector<float> noise(10'000);
  sage::fill_normal({9, 77, 0}, 0, noise.size(), noise.data());
  for (std::size_t i = 0; i < noise.size(); ++i) CHECK_EQ(bench.z[i], 0.125F * noise[i]);
}

TEST("each running run publishes one record per step, in slot order") {
  Bench bench(3, 8);
  for (std::uint64_t id = 1; id <= 3; ++id) bench.admit(id, 1.0);
  bench.tick.now_ns = 55;
  bench.tick.tick_us = 9.0;
  bench.step();
  sage::RingReader reader(bench.ring.span());
  std::vector<sage::Record> records(10);
  CHECK_EQ(reader.drain(records.data(), records.size()), 6U);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK_EQ(records[3 + i].run_id, i + 1);
    CHECK_EQ(records[3 + i].step_idx, 1U);
    CHECK_EQ(records[3 + i].time_ns, 55);
    CHECK_EQ(records[3 + i].spent_us, 3.0F);
  }
}
