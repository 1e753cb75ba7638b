#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "core/halting.h"
#include "core/hd.h"
#include "core/ring.h"
#include "core/run.h"
#include "kernels/latent_math.h"

// Slots that are refined, ended and refilled on the device, without the host between two ticks.
//
// What passes between host and device lies in mapped memory, and each word has one writer:
//   host -> device   Entry, Control, Desk, queue   read by the loop
//   device -> host   Outcome, the ring, Report     written by the loop's deciding thread
// A request has a *row* in the store from its encoding to its decoding: there its first state is put, and its
// best one is brought back. The host hands rows out; `queue` is the order in which they came.
namespace sage {

inline constexpr std::int32_t kNone = -1;

/// A request, by row; the host writes it before it hands the row in.
struct Entry {
  std::uint64_t run_id;
  HaltPolicy policy;
  double charge_us;  ///< compute that led to its first state
  std::uint8_t branch;
};

/// What the host may still change about a request, by row; read once per tick. Each word is an atomic.
struct Control {
  std::uint64_t stop;         ///< the HaltReason that ends the run before its next step; 0: go on
  std::uint64_t deadline_ns;  ///< on the host's monotonic clock
  std::uint64_t max_steps;
  std::uint64_t budget_us;  ///< what may be charged: the bits of a double
};

/// What the host tells the loop. Each word is an atomic.
struct Desk {
  std::uint64_t handed_in;        ///< requests so far; the newest has the row queue[(handed_in - 1) % rows]
  std::uint64_t margin_ns;        ///< time that finishing an answer takes
  std::uint64_t clock_offset_ns;  ///< the host's monotonic clock minus the device's, modulo 2^64
  std::uint64_t pause;            ///< not 0: the launch stops after its tick
};

/// How a request ended, by row.
struct Outcome {
  Run run;
  std::uint64_t done;  ///< atomic: 1 once `run` is whole and the best state is in the store
};

/// Where the loop stands, for the host to read at any time. Each word is an atomic.
struct Report {
  std::uint64_t launches;  ///< that have begun
  std::uint64_t ticks;     ///< since the loop was made
  std::uint64_t dealt;     ///< requests that had their turn
  std::uint64_t running;   ///< live slots
  std::uint64_t go_on;     ///< 0: the launch has decided to stop
};

/// A request that waits on the device for a slot.
struct Waiting {
  std::int32_t row;
  bool is_over;  ///< it is to be stopped, or its deadline leaves no step: it ends with its first state
};

/// A place in the batch. `row`, `run` and `stop` are the deciding thread's; the other fields are orders to
/// the next exchange of rows.
struct Slot {
  Run run;
  std::int32_t row = kNone;         ///< of the request that lives here
  std::int32_t leaving = kNone;     ///< row of the store that awaits the best state
  std::int32_t arriving = kNone;    ///< row of the store with the state to take
  std::int32_t moved_from = kNone;  ///< slot whose state to take
  bool best_is_current = false;     ///< of the run that is leaving: its best state is in z, otherwise in best
  HaltReason stop = HaltReason::kRunning;  ///< with which the host wants the run ended, if any

  SAGE_HD bool live() const { return row != kNone; }
};

/// What the deciding thread keeps between ticks; device memory.
struct LoopState {
  std::uint64_t records;  ///< published so far
  std::uint64_t taken;    ///< rows read from the queue so far
  std::uint64_t waiting;  ///< of them, those that wait for a slot
  std::uint64_t launches;
  std::uint64_t ticks;
  std::uint64_t stop_at_tick;
  std::int64_t decided_ns;  ///< time of the last decision
  std::uint32_t running;
  std::uint32_t go_on;
};

/// One width of the loop. A narrower one is run while few requests are left.
struct Width {
  std::int32_t slots;     ///< rows of the batch
  std::int32_t narrower;  ///< stop when no more than so many are live and none waits; 0: only when all ended
  std::uint64_t ticks;    ///< stop after so many
};

/// Borrowed memory of the loop.
struct Loop {
  Slot* slots;      ///< [capacity]
  ChunkSums* sums;  ///< [capacity], of the step just made
  LoopState* state;
  const Entry* entries;       ///< [rows]
  const std::int32_t* queue;  ///< [rows]
  const Control* controls;    ///< [rows]
  const Desk* desk;
  Waiting* waiting;   ///< [rows], in the order in which they came
  Outcome* outcomes;  ///< [rows]
  Report* report;
  const float* first_terms;   ///< [rows, terms], energy terms of first states
  const float* energy_terms;  ///< [capacity, terms], of the states that the step leads to
  RingSpan ring;
  std::uint64_t rows;
  std::int32_t capacity;
  std::int32_t terms;
  std::uint64_t elements;
  double residual_weight;
  std::uint8_t plugin;
};

/// The host's monotonic clock, as the device knows it. Off the device the offset alone tells the time.
SAGE_HD inline std::int64_t now_ns(const Loop& loop) {
  std::uint64_t timer = 0;
#if defined(__CUDA_ARCH__)
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(timer));
#endif
  return static_cast<std::int64_t>(timer + system_atomic::load_relaxed(loop.desk->clock_offset_ns));
}

SAGE_HD inline double mean_terms(const float* terms, std::int32_t count) {
  double sum = 0.0;
  for (std::int32_t i = 0; i < count; ++i) sum += static_cast<double>(terms[i]);
  return count == 0 ? 0.0 : sum / count;
}

/// ||z_new - z|| / max(||z_new||, 1e-12)
SAGE_HD inline double residual(const ChunkSums& sums) {
  const double norm = std::sqrt(sums.state);
  return std::sqrt(sums.change) / (norm > 1e-12 ? norm : 1e-12);
}

SAGE_HD inline double energy(const Loop& loop, std::int32_t slot, const ChunkSums& sums) {
  if (!std::isfinite(sums.change) || !std::isfinite(sums.state)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  return mean_terms(loop.energy_terms + static_cast<std::int64_t>(slot) * loop.terms, loop.terms) +
         loop.residual_weight * sums.change / static_cast<double>(loop.elements);
}

SAGE_HD inline std::int64_t margin_ns(const Loop& loop) {
  return static_cast<std::int64_t>(system_atomic::load_relaxed(loop.desk->margin_ns));
}

inline std::uint64_t to_bits(double value) {
  std::uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

SAGE_HD inline double from_bits(std::uint64_t bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

SAGE_HD inline void heed(const Control& control, Run& run) {
  run.limit(static_cast<std::int32_t>(system_atomic::load_relaxed(control.max_steps)),
            static_cast<std::int64_t>(system_atomic::load_relaxed(control.deadline_ns)));
  run.set_budget(from_bits(system_atomic::load_relaxed(control.budget_us)));
}

SAGE_HD inline HaltReason asked_to_stop(const Control& control) {
  return static_cast<HaltReason>(system_atomic::load_relaxed(control.stop));
}

/// Looks at what the host wants of the live run in `slot`. Reading across the bus is slow, so every thread
/// looks for one slot.
SAGE_HD inline void look_at_slot(const Loop& loop, std::int32_t slot) {
  Slot& here = loop.slots[slot];
  const Control& control = loop.controls[here.row];
  heed(control, here.run);
  here.stop = asked_to_stop(control);
}

/// The same of who waits as number `place`.
SAGE_HD inline void look_at_waiting(const Loop& loop, std::uint64_t place, std::int64_t time_ns) {
  Waiting& here = loop.waiting[place];
  const Control& control = loop.controls[here.row];
  const auto deadline_ns = static_cast<std::int64_t>(system_atomic::load_relaxed(control.deadline_ns));
  here.is_over = asked_to_stop(control) != HaltReason::kRunning || deadline_ns - margin_ns(loop) <= time_ns;
}

SAGE_HD inline void publish_next(const Loop& loop, const Run& run, std::int64_t time_ns) {
  publish(loop.ring, loop.state->records++, run.record(time_ns));
}

/// Lets the live run in `slot` observe the state it has just reached, and publishes that. Threads: one for
/// each slot, at the same time; `count_steps` follows when all are done.
SAGE_HD inline void observe_step(const Loop& loop, std::int32_t slot, std::int64_t time_ns) {
  Slot& here = loop.slots[slot];
  std::uint64_t earlier = 0;
  for (std::int32_t other = 0; other < slot; ++other) earlier += loop.slots[other].live() ? 1U : 0U;
  look_at_slot(loop, slot);
  const ChunkSums sums = loop.sums[slot];
  Observation seen{};
  seen.E = energy(loop, slot, sums);
  seen.residual = residual(sums);
  seen.now_ns = time_ns;
  seen.margin_ns = margin_ns(loop);
  seen.charge_us = static_cast<double>(time_ns - loop.state->decided_ns) / 1e3 / loop.state->running;
  here.run.observe(seen);
  publish(loop.ring, loop.state->records + earlier, here.run.record(time_ns));
}

// What follows belongs to one thread of the device.

/// Ends a run between two steps, unless it has ended or nobody wants that.
SAGE_HD inline void close(const Loop& loop, Run& run, HaltReason reason, std::int64_t time_ns) {
  if (reason == HaltReason::kRunning || !run.running()) return;
  run.close(reason);
  publish_next(loop, run, time_ns);
}

/// Orders the best state of an ended run back to its row of the store, and frees the slot.
SAGE_HD inline void dismiss(const Loop& loop, Slot& slot) {
  loop.outcomes[slot.row].run = slot.run;
  slot.leaving = slot.row;
  slot.best_is_current = slot.run.best_is_current();
  slot.row = kNone;
}

/// Opens the run of a request with its first state. It may have ended at once, and has where there is no slot
/// for it: its row has its best state already.
SAGE_HD inline Run open_run(const Loop& loop, std::int32_t row, bool has_slot, std::int64_t time_ns) {
  const Entry& entry = loop.entries[row];
  Run run(entry.run_id, entry.policy, loop.plugin, entry.branch);
  heed(loop.controls[row], run);
  Observation first{};
  first.E = mean_terms(loop.first_terms + static_cast<std::int64_t>(row) * loop.terms, loop.terms);
  first.residual = std::numeric_limits<double>::quiet_NaN();
  first.now_ns = time_ns;
  first.margin_ns = margin_ns(loop);
  first.charge_us = entry.charge_us;
  run.observe(first);
  publish_next(loop, run, time_ns);
  close(loop, run, asked_to_stop(loop.controls[row]), time_ns);
  if (!has_slot) close(loop, run, HaltReason::kTimeout, time_ns);  // even if its deadline has just moved
  if (!run.running()) {
    loop.outcomes[row].run = run;
    system_atomic::store_release(loop.outcomes[row].done, 1);
  }
  return run;
}

/// Takes in what the host has handed in since.
SAGE_HD inline void take_rows(const Loop& loop) {
  LoopState& state = *loop.state;
  const std::uint64_t handed_in = system_atomic::load_acquire(loop.desk->handed_in);
  while (state.taken < handed_in) {
    loop.waiting[state.waiting++] = {loop.queue[state.taken++ % loop.rows], false};
  }
}

/// Fills free slots with those who wait, first come, first served; who cannot wait any longer ends.
SAGE_HD inline void deal(const Loop& loop, std::int32_t width, std::int64_t time_ns) {
  const std::uint64_t count = loop.state->waiting;
  std::uint64_t kept = 0;
  std::int32_t slot = 0;
  for (std::uint64_t place = 0; place < count; ++place) {
    const Waiting here = loop.waiting[place];
    while (slot < width && loop.slots[slot].live()) ++slot;
    const bool has_slot = slot < width;
    if (!has_slot && !here.is_over) {
      loop.waiting[kept++] = here;
      continue;
    }
    const Run run = open_run(loop, here.row, has_slot, time_ns);
    if (!run.running()) continue;
    loop.slots[slot].run = run;
    loop.slots[slot].row = loop.slots[slot].arriving = here.row;
    loop.slots[slot].stop = HaltReason::kRunning;
  }
  loop.state->waiting = kept;
}

/// Ends what has ended, fills what is free, and decides whether to go on.
SAGE_HD inline void settle(const Loop& loop, const Width& width, std::int64_t time_ns) {
  LoopState& state = *loop.state;
  for (std::int32_t i = 0; i < loop.capacity; ++i) {
    Slot& slot = loop.slots[i];
    if (!slot.live()) continue;
    close(loop, slot.run, slot.stop, time_ns);
    if (!slot.run.running()) dismiss(loop, slot);
  }
  take_rows(loop);
  deal(loop, width.slots, time_ns);
  state.running = 0;
  for (std::int32_t i = 0; i < loop.capacity; ++i) state.running += loop.slots[i].live() ? 1U : 0U;
  // Who still waits has found this width full: stop for a wider one.
  const bool fits = state.waiting > 0 ? width.slots == loop.capacity
                                      : state.running > static_cast<std::uint32_t>(width.narrower);
  const bool paused = system_atomic::load_relaxed(loop.desk->pause) != 0;
  state.go_on = fits && !paused && state.ticks < state.stop_at_tick ? 1U : 0U;
  state.decided_ns = time_ns;
  system_atomic::store_relaxed(loop.report->launches, state.launches);
  system_atomic::store_relaxed(loop.report->ticks, state.ticks);
  system_atomic::store_relaxed(loop.report->dealt, state.taken - state.waiting);
  system_atomic::store_relaxed(loop.report->running, state.running);
  system_atomic::store_release(loop.report->go_on, state.go_on);
}

/// Moves live runs into free slots below `width`, so that a narrower batch holds them all.
SAGE_HD inline void compact(const Loop& loop, std::int32_t width) {
  std::int32_t hole = 0;
  for (std::int32_t i = width; i < loop.capacity; ++i) {
    if (!loop.slots[i].live()) continue;
    while (hole < width && loop.slots[hole].live()) ++hole;
    if (hole == width) return;
    loop.slots[hole].run = loop.slots[i].run;
    loop.slots[hole].row = loop.slots[i].row;
    loop.slots[hole].stop = loop.slots[i].stop;
    loop.slots[hole].moved_from = i;
    loop.slots[i].row = kNone;
  }
}

/// Before the first tick of a launch. The caller exchanges rows next.
SAGE_HD inline void begin(const Loop& loop, const Width& width) {
  const std::int64_t time_ns = now_ns(loop);
  ++loop.state->launches;
  loop.state->stop_at_tick = loop.state->ticks + width.ticks;
  compact(loop, width.slots);
  for (std::int32_t i = 0; i < loop.capacity; ++i) {
    if (loop.slots[i].live()) look_at_slot(loop, i);
  }
  for (std::uint64_t i = 0; i < loop.state->waiting; ++i) look_at_waiting(loop, i, time_ns);
  settle(loop, width, time_ns);
}

/// After `observe_step` of every live slot. The caller exchanges rows next.
SAGE_HD inline void end_tick(const Loop& loop, const Width& width, std::int64_t time_ns) {
  loop.state->records += loop.state->running;
  ++loop.state->ticks;
  settle(loop, width, time_ns);
}

/// The exchange that a slot was ordered has been made.
SAGE_HD inline void exchanged(const Loop& loop, Slot& slot) {
  if (slot.leaving != kNone) system_atomic::store_release(loop.outcomes[slot.leaving].done, 1);
  slot.leaving = slot.arriving = slot.moved_from = kNone;
}

}  // namespace sage
