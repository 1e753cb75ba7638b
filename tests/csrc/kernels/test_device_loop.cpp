#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <vector>

// The kernels' own sources, compiled by g++ over tests/csrc/emulation/cuda_runtime.h.
#include "check.h"
#include "core/ring_memory.h"
#include "kernels/exchange.cu"
#include "kernels/latent_step.cu"
#include "kernels/latent_step.h"

using sage::Half;
using sage::HaltReason;

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// What a request begins with and where its made-up engine leads it: functions of the run and the step alone.
struct Engine {
  std::size_t elements;
  std::size_t terms = 3;
  double luck = 0.3;    // how often the energy rises
  float poison = 0.0F;  // what one direction is replaced by at step 4 of run 2

  std::vector<float> numbers(std::uint64_t run_id, std::uint64_t what, float scale) const {
    std::mt19937 random(static_cast<std::uint32_t>(run_id * 7919 + what));
    std::uniform_real_distribution<float> uniform(-scale, scale);
    std::vector<float> values(elements);
    for (float& value : values) value = uniform(random);
    return values;
  }
  std::vector<float> first(std::uint64_t run_id) const { return numbers(run_id, 1, 1.5F); }
  std::vector<float> delta(std::uint64_t run_id, std::uint32_t step) const {
    std::vector<float> values = numbers(run_id, 2 + step, 1.0F);
    if (poison != 0.0F && run_id == 2 && step == 4) values[elements - 1] = poison;
    return values;
  }
  std::vector<float> energy(std::uint64_t run_id, std::uint32_t step) const {
    std::mt19937 random(static_cast<std::uint32_t>(run_id * 104729 + step));
    std::uniform_real_distribution<float> uniform(0.0F, 1.0F);
    const float level = std::pow(0.7F, static_cast<float>(step)) + (uniform(random) < luck ? 0.4F : 0.0F);
    std::vector<float> values(terms, level);
    values[0] += 0.01F * uniform(random);
    return values;
  }
};

sage::HaltPolicy policy_of(std::uint64_t run_id) {
  sage::HaltPolicy policy;
  policy.eps = 0.02;
  policy.K = 2;
  policy.max_steps = 4 + static_cast<std::int32_t>(run_id % 9);
  return policy;
}

struct Settings {
  double residual_weight = 0.0;
  float noise_sigma = 0.0F;
};

/// What became of a run.
struct Story {
  std::vector<sage::Record> records;
  std::vector<float> best;
};

/// The same run by the CPU's slot table and latent_step.
Story on_the_cpu(const Engine& engine, std::uint64_t run_id, const Settings& settings) {
  sage::Ring ring(256);
  sage::SlotTable table(1, ring.writer(), 3);
  std::vector<float> z = engine.first(run_id), best = z, step_size(1, 0.5F);
  const auto mean = [](const std::vector<float>& terms) {
    double sum = 0.0;
    for (const float term : terms) sum += static_cast<double>(term);
    return sum / static_cast<double>(terms.size());
  };
  table.admit(run_id, policy_of(run_id), 0, sage::Observation{mean(engine.energy(run_id, 0))});
  sage::TickInputs tick{};
  tick.step_size = step_size.data();
  tick.terms = engine.terms;
  tick.residual_weight = settings.residual_weight;
  tick.noise_sigma = settings.noise_sigma;
  tick.seed = 77;
  tick.lo = -2.0F;
  tick.hi = 2.0F;
  while (table.run(0).running()) {
    const std::uint32_t step = table.run(0).step_idx();
    const std::vector<float> delta = engine.delta(run_id, step), terms = engine.energy(run_id, step + 1);
    tick.energy_terms = terms.data();
    HaltReason reason;
    sage::latent_step(table, {z.data(), delta.data(), best.data(), engine.elements}, tick, nullptr, &reason);
  }
  Story story;
  story.records.resize(100);
  sage::RingReader reader(ring.span());
  story.records.resize(reader.drain(story.records.data(), 100));
  story.best = table.run(0).best_is_current() ? z : best;
  return story;
}

template <class T>
std::vector<T> stored(const std::vector<float>& values) {
  std::vector<T> out;
  for (const float value : values) out.push_back(sage::from_float<T>(value));
  return out;
}

/// The memory of a loop on the device, and the host's side of it.
template <class T>
struct Device {
  Device(const Engine& engine_, std::size_t capacity, std::size_t row_count, const Settings& settings = {})
      : engine(engine_),
        elements(engine_.elements),
        slots(capacity),
        sums(capacity),
        entries(row_count),
        queue(row_count),
        controls(row_count),
        waiting(row_count),
        outcomes(row_count),
        ring(4096),
        first_terms(row_count * engine.terms),
        energy_terms(capacity * engine.terms, kNaN),
        z(capacity * elements),
        delta(z.size()),
        best(z.size()),
        context(capacity * kContext),
        store_z(row_count * elements),
        store_context(row_count * kContext),
        step_size(capacity, 0.5F),
        chunk_sums(capacity * sage::chunks(elements)),
        arrivals(capacity + 1),
        exchange_arrivals(capacity) {
    loop = {slots.data(),
            sums.data(),
            &state,
            entries.data(),
            queue.data(),
            controls.data(),
            &desk,
            waiting.data(),
            outcomes.data(),
            &report,
            first_terms.data(),
            energy_terms.data(),
            ring.span(),
            row_count,
            static_cast<std::int32_t>(capacity),
            static_cast<std::int32_t>(engine.terms),
            elements,
            settings.residual_weight,
            3};
    rows = {z.data(), delta.data(), best.data(), step_size.data(),  settings.noise_sigma,
            77,       -2.0F,        2.0F,        chunk_sums.data(), arrivals.data()};
    const auto bytes = [](auto& values) { return reinterpret_cast<unsigned char*>(values.data()); };
    arrays.arrays[0] = {bytes(z), bytes(store_z), elements * sizeof(T)};
    arrays.arrays[1] = {bytes(context), bytes(store_context), kContext};
    arrays.count = 2;
    arrays.best = bytes(best);
    arrays.arrivals = exchange_arrivals.data();
  }

  /// Hands a request in, as the host does.
  void hand_in(std::uint64_t run_id, std::size_t row) {
    const std::vector<T> first = stored<T>(engine.first(run_id));
    std::copy(first.begin(), first.end(), store_z.begin() + static_cast<std::ptrdiff_t>(row * elements));
    const std::vector<float> terms = engine.energy(run_id, 0);
    std::copy(terms.begin(), terms.end(),
              first_terms.begin() + static_cast<std::ptrdiff_t>(row * engine.terms));
    store_context[row * kContext] = static_cast<unsigned char>(run_id);
    const sage::HaltPolicy policy = policy_of(run_id);
    controls[row] = {0, static_cast<std::uint64_t>(policy.deadline_ns),
                     static_cast<std::uint64_t>(policy.max_steps), sage::to_bits(policy.budget_us)};
    outcomes[row].done = 0;
    entries[row] = {run_id, policy, 0.0, 0};
    queue[desk.handed_in++ % queue.size()] = static_cast<std::int32_t>(row);
  }

  /// The made-up engine; rows of free slots are poisoned, so that whoever reads them is found out.
  void run_engine() {
    std::fill(delta.begin(), delta.end(), sage::from_float<T>(kNaN));
    std::fill(energy_terms.begin(), energy_terms.end(), kNaN);
    for (std::size_t slot = 0; slot < slots.size(); ++slot) {
      if (!slots[slot].live()) continue;
      const sage::Run& run = slots[slot].run;
      CHECK_EQ(static_cast<std::uint64_t>(context[slot * kContext]), run.run_id() % 256);
      const std::vector<T> move = stored<T>(engine.delta(run.run_id(), run.step_idx()));
      std::copy(move.begin(), move.end(), delta.begin() + static_cast<std::ptrdiff_t>(slot * elements));
      const std::vector<float> terms = engine.energy(run.run_id(), run.step_idx() + 1);
      std::copy(terms.begin(), terms.end(),
                energy_terms.begin() + static_cast<std::ptrdiff_t>(slot * engine.terms));
    }
  }

  void tick(const sage::Width& width) {
    run_engine();
    sage::launch_latent_step(rows, loop, width, nullptr);
    sage::launch_exchange(arrays, loop, width.slots, nullptr);
  }

  /// One launch of the loop.
  void launch(const sage::Width& width) {
    sage::launch_begin(loop, width, nullptr);
    sage::launch_exchange(arrays, loop, loop.capacity, nullptr);
    while (report.go_on != 0) tick(width);
  }

  sage::Width whole() const { return {loop.capacity, 0, 1000}; }

  std::map<std::uint64_t, std::vector<sage::Record>> records() const {
    sage::RingReader reader(ring.span());
    std::vector<sage::Record> all(4096);
    all.resize(reader.drain(all.data(), all.size()));
    CHECK_EQ(all.size(), state.records);
    CHECK_EQ(reader.lost(), 0U);
    std::map<std::uint64_t, std::vector<sage::Record>> by_run;
    for (const sage::Record& record : all) by_run[record.run_id].push_back(record);
    return by_run;
  }

  std::vector<T> state_of_row(std::size_t row) const {
    const auto first = store_z.begin() + static_cast<std::ptrdiff_t>(row * elements);
    return {first, first + static_cast<std::ptrdiff_t>(elements)};
  }

  static constexpr std::size_t kContext = 5;

  Engine engine;
  std::size_t elements;
  std::vector<sage::Slot> slots;
  std::vector<sage::ChunkSums> sums;
  sage::LoopState state{};
  std::vector<sage::Entry> entries;
  std::vector<std::int32_t> queue;
  std::vector<sage::Control> controls;
  sage::Desk desk{};
  std::vector<sage::Waiting> waiting;
  std::vector<sage::Outcome> outcomes;
  sage::Report report{};
  sage::Ring ring;
  std::vector<float> first_terms, energy_terms;
  std::vector<T> z, delta, best;
  std::vector<unsigned char> context;
  std::vector<T> store_z;
  std::vector<unsigned char> store_context;
  std::vector<float> step_size;
  std::vector<sage::ChunkSums> chunk_sums;
  std::vector<std::uint32_t> arrivals, exchange_arrivals;
  sage::Loop loop{};
  sage::DeviceRows<T> rows{};
  sage::RowArrays arrays{};
};

template <class T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

/// Compares records field by field. Sums are added in another order than the CPU's: in floats over at most
/// 16 numbers, then over the tree of a warp, then in double.
void check_records(const std::vector<sage::Record>& got, const std::vector<sage::Record>& expected,
                   double tolerance) {
  CHECK_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CHECK_EQ(got[i].step_idx, expected[i].step_idx);
    CHECK_EQ(static_cast<int>(got[i].halt_reason), static_cast<int>(expected[i].halt_reason));
    CHECK_EQ(static_cast<int>(got[i].flags), static_cast<int>(expected[i].flags));
    CHECK_EQ(static_cast<int>(got[i].plugin), static_cast<int>(expected[i].plugin));
    CHECK_EQ(got[i].monotonicity_ratio, expected[i].monotonicity_ratio);
    const auto near = [&](float a, float b) {
      return std::isnan(b) ? std::isnan(a)
                           : a == b || std::fabs(a - b) <= tolerance * std::fabs(b) + tolerance;
    };
    CHECK(near(got[i].E, expected[i].E));
    CHECK(near(got[i].dE, expected[i].dE));
    CHECK(near(got[i].best_E, expected[i].best_E));
    CHECK(near(got[i].dE_variance, expected[i].dE_variance));
    const double residual_error = std::fabs(static_cast<double>(got[i].residual - expected[i].residual));
    CHECK(std::isnan(expected[i].residual)
              ? std::isnan(got[i].residual)
              : residual_error <= 1e-5 * static_cast<double>(expected[i].residual));
  }
}

}  // namespace

TEST("every run has the records and the best state that the CPU gives it, whatever slot it has") {
  for (const std::size_t elements : {1U, 7U, 4096U, 4100U, 8201U}) {
    const Engine engine{elements};
    Device<float> device(engine, 3, 8);
    for (std::uint64_t run_id = 0; run_id < 8; ++run_id) device.hand_in(run_id, (run_id * 3) % 8);
    device.launch(device.whole());
    CHECK_EQ(device.report.running, 0U);
    const auto records = device.records();
    for (std::uint64_t run_id = 0; run_id < 8; ++run_id) {
      const std::size_t row = (run_id * 3) % 8;
      const Story expected = on_the_cpu(engine, run_id, {});
      check_records(records.at(run_id), expected.records,
                    0.0);  // energies come from the terms: the same bits
      CHECK_EQ(device.outcomes[row].done, 1U);
      CHECK_EQ(device.outcomes[row].run.run_id(), run_id);
      CHECK(same_bytes(device.state_of_row(row), expected.best));
    }
  }
}

TEST("noise has the bits that it has on the CPU, and the residual may be in the energy") {
  const Settings settings{0.25, 0.125F};
  const Engine engine{5003};
  Device<float> device(engine, 2, 4, settings);
  for (std::uint64_t run_id = 0; run_id < 4; ++run_id) device.hand_in(run_id, run_id);
  device.launch(device.whole());
  const auto records = device.records();
  for (std::uint64_t run_id = 0; run_id < 4; ++run_id) {
    const Story expected = on_the_cpu(engine, run_id, settings);
    check_records(records.at(run_id), expected.records, 1e-6);
    CHECK(same_bytes(device.state_of_row(run_id), expected.best));
  }
}

TEST("nothing depends on the order of blocks and threads") {
  const auto outcome = [](std::uint32_t seed) {
    emulation::seed = seed;
    Device<Half> device(Engine{9001}, 3, 6, {0.25, 0.1F});
    for (std::uint64_t run_id = 0; run_id < 6; ++run_id) device.hand_in(run_id, run_id);
    device.launch(device.whole());
    std::vector<unsigned char> bytes(device.store_z.size() * sizeof(Half));
    std::memcpy(bytes.data(), device.store_z.data(), bytes.size());
    std::vector<sage::Record> all(4096);
    sage::RingReader reader(device.ring.span());
    all.resize(reader.drain(all.data(), all.size()));
    const auto* first = reinterpret_cast<const unsigned char*>(all.data());
    bytes.insert(bytes.end(), first, first + all.size() * sizeof(sage::Record));
    return bytes;
  };
  const std::vector<unsigned char> reference = outcome(1);
  for (std::uint32_t seed = 2; seed < 6; ++seed) CHECK(outcome(seed) == reference);
}

TEST("half precision is stored rounded, computed in float, and summed as it is stored") {
  for (const std::size_t elements : {5U, 8U, 4104U, 4097U}) {
    const Engine engine{elements};
    Device<Half> device(engine, 1, 1, {1.0, 0.0F});
    device.hand_in(9, 0);
    sage::launch_begin(device.loop, device.whole(), nullptr);
    sage::launch_exchange(device.arrays, device.loop, 1, nullptr);
    const std::vector<Half> before = device.z;
    device.tick(device.whole());
    double change = 0.0, state = 0.0;
    for (std::size_t i = 0; i < elements; ++i) {
      const float moved = sage::to_float(before[i]) + 0.5F * sage::to_float(device.delta[i]);
      const Half expected = sage::from_float<Half>(std::clamp(moved, -2.0F, 2.0F));
      CHECK_EQ(device.z[i].bits, expected.bits);
      const double value = static_cast<double>(sage::to_float(expected));
      change += std::pow(value - static_cast<double>(sage::to_float(before[i])), 2);
      state += value * value;
    }
    CHECK(same_bytes(device.best, before));
    const sage::Run& run = device.slots[0].run;
    double terms = 0.0;
    for (const float term : engine.energy(9, 1)) terms += static_cast<double>(term) / 3.0;
    CHECK_NEAR(run.E(), terms + change / static_cast<double>(elements), 1e-6);
    CHECK_NEAR(run.residual(), std::sqrt(change / state), 1e-6 * run.residual());
  }
}

TEST("a direction that is not a number ends its run alone, and its best state comes back") {
  Engine engine{4500};
  engine.poison = kNaN;
  engine.luck = 0.0;  // the energy falls all the way, so the state before the last is the best
  Device<float> device(engine, 2, 2);
  device.hand_in(2, 0);
  device.hand_in(8, 1);
  device.controls[0].max_steps = 50;
  device.launch(device.whole());
  const auto records = device.records();
  const sage::Record& last = records.at(2).back();
  CHECK(last.halt_reason == HaltReason::kDiverged);
  CHECK_EQ(last.step_idx, 5U);
  std::vector<float> expected = engine.first(2);
  for (std::uint32_t step = 0; step < 4; ++step) {
    const std::vector<float> delta = engine.delta(2, step);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expected[i] = std::clamp(expected[i] + 0.5F * delta[i], -2.0F, 2.0F);
    }
  }
  CHECK(same_bytes(device.state_of_row(0), expected));
  CHECK(records.at(8).back().halt_reason != HaltReason::kDiverged);
}

TEST("a freed slot is taken in the same tick, first come, first served") {
  Device<float> device(Engine{20}, 2, 6);
  for (std::uint64_t run_id = 0; run_id < 6; ++run_id) device.hand_in(run_id, run_id);
  sage::launch_begin(device.loop, device.whole(), nullptr);
  sage::launch_exchange(device.arrays, device.loop, 2, nullptr);
  std::uint64_t newest = 1;
  while (device.report.go_on != 0) {
    device.tick(device.whole());
    if (device.report.dealt < 6) CHECK_EQ(device.report.running, 2U);
    for (const sage::Slot& slot : device.slots) {
      if (!slot.live()) continue;
      CHECK(slot.run.run_id() <= newest + 2);
      newest = std::max(newest, slot.run.run_id());
    }
  }
  CHECK_EQ(newest, 5U);
}

TEST("a run that is over with its first state never takes a slot, and its row holds its answer") {
  const Engine engine{20};
  Device<float> device(engine, 1, 3);
  for (std::uint64_t run_id = 0; run_id < 3; ++run_id) device.hand_in(run_id, run_id);
  device.desk.clock_offset_ns = 1000;
  device.controls[0].deadline_ns = 900;
  device.controls[1].stop = static_cast<std::uint64_t>(HaltReason::kCancelled);
  sage::launch_begin(device.loop, device.whole(), nullptr);
  CHECK_EQ(device.slots[0].run.run_id(), 2U);
  CHECK_EQ(device.outcomes[0].done, 1U);
  CHECK(device.outcomes[0].run.halt_reason() == HaltReason::kTimeout);
  CHECK(same_bytes(device.state_of_row(0), engine.first(0)));
  CHECK(device.outcomes[1].run.halt_reason() == HaltReason::kCancelled);
  const auto records = device.records();
  CHECK_EQ(records.at(0).size(), 1U);
  CHECK_EQ(records.at(1).size(), 2U);
  CHECK_EQ(records.at(1)[1].step_idx, 0U);
}

TEST("stops, deadlines and new limits reach the loop between two ticks") {
  const Engine engine{33};
  Device<float> device(engine, 3, 3);
  for (std::uint64_t run_id = 14; run_id < 17; ++run_id) {
    device.hand_in(run_id, run_id - 14);
    device.entries[run_id - 14].policy.eps = 0.0;
    device.entries[run_id - 14].policy.divergence_factor = 1e9;
  }
  sage::launch_begin(device.loop, device.whole(), nullptr);
  sage::launch_exchange(device.arrays, device.loop, 3, nullptr);
  device.tick(device.whole());
  CHECK_EQ(device.report.running, 3U);
  device.controls[0].stop = static_cast<std::uint64_t>(HaltReason::kGlobalHalt);
  device.controls[1].max_steps = 2;
  device.controls[2].deadline_ns = 5000;
  device.desk.clock_offset_ns = 4990;
  device.desk.margin_ns = 20;
  device.tick(device.whole());
  const auto records = device.records();
  const sage::Record& closing = records.at(14).back();
  CHECK(closing.halt_reason == HaltReason::kGlobalHalt);
  CHECK((closing.flags & sage::kFlagClosing) != 0);
  CHECK_EQ(closing.step_idx, 2U);
  CHECK(records.at(15).back().halt_reason == HaltReason::kMaxSteps);
  CHECK(records.at(16).back().halt_reason == HaltReason::kTimeout);
  CHECK_EQ(device.report.go_on, 0U);
  for (const sage::Outcome& outcome : device.outcomes) CHECK_EQ(outcome.done, 1U);
}

TEST("a budget that moves while a run goes on is its limit from the next decision on") {
  Device<float> device(Engine{33}, 2, 2);
  for (std::uint64_t run_id = 14; run_id < 16; ++run_id) {
    device.hand_in(run_id, run_id - 14);
    device.entries[run_id - 14].policy.eps = 0.0;
    device.entries[run_id - 14].policy.divergence_factor = 1e9;
    device.controls[run_id - 14].max_steps = 50;
  }
  const auto tick = [&] {
    device.desk.clock_offset_ns += 20'000;  // 10 us for each of the two
    device.tick(device.whole());
  };
  sage::launch_begin(device.loop, device.whole(), nullptr);
  sage::launch_exchange(device.arrays, device.loop, 2, nullptr);
  tick();
  device.controls[0].budget_us = sage::to_bits(35.0);
  tick();
  CHECK_EQ(device.report.running, 2U);
  tick();  // 30 us are spent, and another step would pass 35
  const auto records = device.records();
  const sage::Record& last = records.at(14).back();
  CHECK(last.halt_reason == HaltReason::kBudget);
  CHECK_EQ(last.step_idx, 3U);
  CHECK_EQ(last.spent_us, 30.0F);
  CHECK(records.at(15).back().halt_reason == HaltReason::kRunning);
}

TEST("who waits for a slot ends with its first state when it is stopped or its deadline comes, in order") {
  const Engine engine{33};
  Device<float> device(engine, 1, 6);
  for (std::uint64_t run_id = 14; run_id < 19; ++run_id) device.hand_in(run_id, run_id - 14);
  device.entries[0].policy.eps = 0.0;
  device.controls[0].max_steps = 3;
  sage::launch_begin(device.loop, device.whole(), nullptr);
  sage::launch_exchange(device.arrays, device.loop, 1, nullptr);
  CHECK_EQ(device.report.dealt, 1U);
  device.controls[2].stop = static_cast<std::uint64_t>(HaltReason::kCancelled);
  device.controls[3].deadline_ns = 5000;
  device.desk.clock_offset_ns = 4990;
  device.desk.margin_ns = 20;
  device.tick(device.whole());
  CHECK_EQ(device.report.dealt, 3U);
  CHECK_EQ(device.report.running, 1U);
  CHECK_EQ(device.outcomes[2].done + device.outcomes[3].done, 2U);
  CHECK(device.outcomes[2].run.halt_reason() == HaltReason::kCancelled);
  CHECK(device.outcomes[3].run.halt_reason() == HaltReason::kTimeout);
  CHECK_EQ(device.outcomes[3].run.step_idx(), 0U);
  CHECK(same_bytes(device.state_of_row(3), engine.first(17)));
  device.hand_in(20, 2);  // a row that is free again, behind who still waits
  std::vector<std::uint64_t> order;
  while (device.report.go_on != 0) {
    device.tick(device.whole());
    if (device.slots[0].live() && (order.empty() || order.back() != device.slots[0].run.run_id())) {
      order.push_back(device.slots[0].run.run_id());
    }
  }
  CHECK(order == (std::vector<std::uint64_t>{14, 15, 18, 20}));
  const auto records = device.records();
  CHECK_EQ(records.at(16).size(), 2U);  // its first state, and the closing record
  CHECK_EQ(records.at(17).size(), 1U);
}

TEST("a pause stops the launch after its tick, and the next one goes on where it was") {
  const Engine engine{64};
  Device<float> device(engine, 2, 2);
  for (std::uint64_t run_id = 0; run_id < 2; ++run_id) device.hand_in(run_id, run_id);
  device.desk.pause = 1;
  device.launch(device.whole());
  CHECK_EQ(device.report.ticks, 0U);
  CHECK_EQ(device.report.running, 2U);
  device.desk.pause = 0;
  sage::launch_begin(device.loop, device.whole(), nullptr);
  sage::launch_exchange(device.arrays, device.loop, 2, nullptr);
  device.desk.pause = 1;
  device.tick(device.whole());
  CHECK_EQ(device.report.go_on, 0U);
  CHECK_EQ(device.report.ticks, 1U);
  device.desk.pause = 0;
  device.launch(device.whole());
  for (std::uint64_t run_id = 0; run_id < 2; ++run_id) {
    CHECK(same_bytes(device.state_of_row(run_id), on_the_cpu(engine, run_id, {}).best));
  }
}

TEST("time is charged in equal shares to those who were stepped") {
  Device<float> device(Engine{33}, 3, 2);
  device.hand_in(15, 0);
  device.hand_in(16, 1);
  device.entries[0].charge_us = 7.0;
  device.desk.clock_offset_ns = 10'000;
  sage::launch_begin(device.loop, device.whole(), nullptr);
  sage::launch_exchange(device.arrays, device.loop, 3, nullptr);
  device.desk.clock_offset_ns = 16'000;
  device.tick(device.whole());
  const auto records = device.records();
  CHECK_EQ(records.at(15).back().spent_us, 10.0F);
  CHECK_EQ(records.at(16).back().spent_us, 3.0F);
  CHECK_EQ(records.at(16).back().time_ns, 16'000);
}

TEST("the loop pauses after its ticks, and goes on where it was") {
  const Engine engine{50};
  Device<float> device(engine, 2, 2);
  device.hand_in(7, 0);
  device.hand_in(8, 1);
  int launches = 0;
  do {
    device.launch({2, 0, 2});
    ++launches;
  } while (device.report.running != 0);
  CHECK(launches > 1);
  const auto records = device.records();
  check_records(records.at(7), on_the_cpu(engine, 7, {}).records, 0.0);
  check_records(records.at(8), on_the_cpu(engine, 8, {}).records, 0.0);
}

TEST("when few are left they move together and go on in a narrower batch") {
  const Engine engine{4500};
  Device<float> device(engine, 8, 8);
  for (std::uint64_t run_id = 0; run_id < 8; ++run_id) device.hand_in(run_id, run_id);
  device.launch({8, 2, 1000});
  CHECK(device.report.running >= 1 && device.report.running <= 2);
  // One of them is asked to stop before it has moved: it must leave with the state that it had.
  const auto live = std::find_if(device.slots.rbegin(), device.slots.rend(),
                                 [](const sage::Slot& slot) { return slot.live(); });
  const std::size_t stopped = static_cast<std::size_t>(live->row);
  const std::size_t from = static_cast<std::size_t>(device.slots.rend() - live - 1);
  const bool in_z = live->run.best_is_current();
  const std::vector<float>& source = in_z ? device.z : device.best;
  const std::vector<float> best(source.begin() + static_cast<std::ptrdiff_t>(from * 4500),
                                source.begin() + static_cast<std::ptrdiff_t>((from + 1) * 4500));
  device.controls[stopped].stop = static_cast<std::uint64_t>(HaltReason::kCancelled);
  device.launch({2, 0, 1000});
  CHECK_EQ(device.report.running, 0U);
  CHECK(same_bytes(device.state_of_row(stopped), best));
  const auto records = device.records();
  for (std::uint64_t run_id = 0; run_id < 8; ++run_id) {
    if (run_id == stopped) continue;
    const Story expected = on_the_cpu(engine, run_id, {});
    check_records(records.at(run_id), expected.records, 0.0);
    CHECK(same_bytes(device.state_of_row(run_id), expected.best));
  }
}

TEST("a narrow batch stops for a wider one when it is full and others wait") {
  Device<float> device(Engine{20}, 4, 4);
  device.hand_in(7, 0);
  device.launch({1, 0, 1});
  for (std::uint64_t run_id = 8; run_id < 11; ++run_id) device.hand_in(run_id, run_id - 7);
  device.launch({1, 0, 1000});
  CHECK_EQ(device.report.running, 1U);
  CHECK_EQ(device.report.ticks, 1U);
  CHECK_EQ(device.report.launches, 2U);
  device.launch({4, 1, 1});
  CHECK_EQ(device.report.dealt, 4U);
}

TEST("rows are used again, and more requests than rows pass through") {
  const Engine engine{64};
  Device<Half> device(engine, 2, 3);
  std::uint64_t next = 0;
  std::size_t answered = 0;
  for (std::size_t row = 0; row < 3; ++row) device.hand_in(next++, row);
  while (answered < 20) {
    device.launch({2, 0, 3});
    for (std::size_t row = 0; row < 3; ++row) {
      if (device.outcomes[row].done == 0) continue;
      device.outcomes[row].done = 0;
      ++answered;
      if (next < 20) device.hand_in(next++, row);
    }
  }
  const auto records = device.records();
  CHECK_EQ(records.size(), 20U);
  for (const auto& [run_id, lines] : records) {
    CHECK(lines.back().halt_reason != HaltReason::kRunning);
    for (std::size_t i = 0; i < lines.size(); ++i) CHECK_EQ(lines[i].step_idx, i);
  }
}
