#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/ring.h"
#include "core/run.h"

namespace sage {

/// The runs of one refiner. The live slots are always 0 .. live() - 1, so that a batch has no holes.
///
/// Owns:    its runs; borrows the ring, to which every state is published as a record.
/// Threads: one at a time, the ring's producer.
/// Errors:  a slot that is not live throws std::out_of_range.
class SlotTable {
 public:
  SlotTable(std::size_t capacity, RingWriter& ring, std::uint8_t plugin);

  std::size_t capacity() const { return runs_.size(); }
  std::size_t live() const { return live_; }

  /// Opens a run in slot `live()` and observes its state 0. It may have ended at once: see its halt_reason().
  /// @returns the slot.
  /// @throws CapacityError when every slot is live.
  std::size_t admit(std::uint64_t run_id, const HaltPolicy& policy, std::uint8_t branch,
                    const Observation& first);

  /// Takes the next state of a run and publishes it.
  /// @throws ConfigError when the run has ended already.
  HaltReason observe(std::size_t slot, const Observation& state);

  /// Takes a run that went astray back to an earlier state and publishes that.
  /// @throws ConfigError when no rewind is due.
  void rewind(std::size_t slot, double E, bool feasible, std::uint8_t branch, std::int64_t now_ns);

  /// Moves the limit of what may be charged to a run.
  /// @returns whether it pays for another step like the last one.
  /// @throws ConfigError when it is negative or no number.
  bool set_budget(std::size_t slot, double budget_us);

  /// Ends a run between two steps and publishes its closing record.
  /// @throws ConfigError when the run has ended already: a run has one final record.
  void close(std::size_t slot, HaltReason reason, std::int64_t now_ns);

  /// Frees a slot; the last live run moves into the hole.
  /// @returns where the run that is in `slot` now came from, `slot` itself if it was the last.
  std::size_t remove(std::size_t slot);

  const Run& run(std::size_t slot) const { return runs_[live_index(slot)]; }

 private:
  Run& running(std::size_t slot);
  std::size_t live_index(std::size_t slot) const;

  std::vector<Run> runs_;
  std::size_t live_ = 0;
  RingWriter& ring_;
  std::uint8_t plugin_;
};

}  // namespace sage
