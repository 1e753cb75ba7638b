#include "core/slot_table.h"

#include <stdexcept>
#include <string>

#include "core/errors.h"

namespace sage {

SlotTable::SlotTable(std::size_t capacity, RingWriter& ring, std::uint8_t plugin)
    : runs_(capacity), ring_(ring), plugin_(plugin) {
  if (capacity == 0) throw ConfigError("slot table capacity: expected at least 1, got 0");
}

std::size_t SlotTable::admit(std::uint64_t run_id, const HaltPolicy& policy, std::uint8_t branch,
                             const Observation& first) {
  if (live_ == runs_.size()) {
    throw CapacityError("all " + std::to_string(runs_.size()) + " slots are live; remove an ended run first");
  }
  const std::size_t slot = live_++;
  runs_[slot] = Run(run_id, policy, plugin_, branch);
  observe(slot, first);
  return slot;
}

HaltReason SlotTable::observe(std::size_t slot, const Observation& state) {
  Run& run = running(slot);
  const HaltReason reason = run.observe(state);
  ring_.push(run.record(state.now_ns));
  return reason;
}

void SlotTable::rewind(std::size_t slot, double E, bool feasible, std::uint8_t branch, std::int64_t now_ns) {
  Run& run = runs_[live_index(slot)];
  if (!run.rewind_due())
    throw ConfigError("slot " + std::to_string(slot) + ": its run is not astray; nothing to rewind");
  run.rewind(E, feasible, branch);
  ring_.push(run.record(now_ns));
}

bool SlotTable::set_budget(std::size_t slot, double budget_us) {
  if (!(budget_us >= 0))
    throw ConfigError("budget_us: expected a number >= 0, got " + std::to_string(budget_us));
  return runs_[live_index(slot)].set_budget(budget_us);
}

void SlotTable::close(std::size_t slot, HaltReason reason, std::int64_t now_ns) {
  Run& run = running(slot);
  run.close(reason);
  ring_.push(run.record(now_ns));
}

std::size_t SlotTable::remove(std::size_t slot) {
  Run& hole = runs_[live_index(slot)];
  const std::size_t last = live_ - 1;
  hole = runs_[last];
  live_ = last;
  return last;
}

Run& SlotTable::running(std::size_t slot) {
  Run& run = runs_[live_index(slot)];
  if (run.running()) return run;
  throw ConfigError("slot " + std::to_string(slot) + ": its run has ended already (" +
                    kHaltReasonNames[static_cast<std::size_t>(run.halt_reason())] + "); remove it");
}

std::size_t SlotTable::live_index(std::size_t slot) const {
  if (slot < live_) return slot;
  throw std::out_of_range("slot " + std::to_string(slot) + ": expected one of the " + std::to_string(live_) +
                          " live slots");
}

}  // namespace sage
