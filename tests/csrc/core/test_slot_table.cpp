#include <cmath>
#include <stdexcept>
#include <vector>

#include "check.h"
#include "core/errors.h"
#include "core/ring_memory.h"
#include "core/slot_table.h"

using sage::HaltPolicy;
using sage::HaltReason;
using sage::Observation;
using sage::Ring;
using sage::SlotTable;

namespace {

HaltPolicy patient() {
  HaltPolicy policy;
  policy.eps = 0.0;
  return policy;
}

std::vector<sage::Record> drain(const Ring& ring) {
  std::vector<sage::Record> records(ring.capacity());
  sage::RingReader reader(ring.span());
  records.resize(reader.drain(records.data(), records.size()));
  return records;
}

}  // namespace

TEST("live slots stay a prefix: the last run moves into the hole") {
  Ring ring(16);
  SlotTable slots(3, ring.writer(), 0);
  for (std::uint64_t id = 10; id < 13; ++id)
    CHECK_EQ(slots.admit(id, patient(), 0, Observation{1.0}), id - 10);
  CHECK_EQ(slots.remove(0), 2U);
  CHECK_EQ(slots.live(), 2U);
  CHECK_EQ(slots.run(0).run_id(), 12U);
  CHECK_EQ(slots.run(1).run_id(), 11U);
  CHECK_EQ(slots.remove(1), 1U);
  CHECK_EQ(slots.admit(13, patient(), 0, Observation{1.0}), 1U);
}

TEST("a full table refuses, and publishes nothing for it") {
  Ring ring(16);
  SlotTable slots(1, ring.writer(), 0);
  slots.admit(1, patient(), 0, Observation{1.0});
  CHECK_THROWS(sage::CapacityError, slots.admit(2, patient(), 0, Observation{1.0}));
  CHECK_EQ(ring.writer().published(), 1U);
}

TEST("a slot that is not live is out of range") {
  Ring ring(16);
  SlotTable slots(2, ring.writer(), 0);
  slots.admit(1, patient(), 0, Observation{1.0});
  CHECK_THROWS(std::out_of_range, slots.run(1));
  CHECK_THROWS(std::out_of_range, slots.observe(1, Observation{1.0}));
  CHECK_THROWS(std::out_of_range, slots.close(1, HaltReason::kCancelled, 0));
  CHECK_THROWS(std::out_of_range, slots.remove(1));
}

TEST("every state and one closing record are published, in order") {
  Ring ring(16);
  SlotTable slots(1, ring.writer(), 9);
  slots.admit(1, patient(), 2, Observation{3.0});
  CHECK(slots.observe(0, Observation{2.0}) == HaltReason::kRunning);
  slots.close(0, HaltReason::kGlobalHalt, 77);
  CHECK_THROWS(sage::ConfigError, slots.close(0, HaltReason::kCancelled, 78));
  const auto records = drain(ring);
  CHECK_EQ(records.size(), 3U);
  CHECK_EQ(records[0].step_idx, 0U);
  CHECK_EQ(records[1].step_idx, 1U);
  CHECK_EQ(records[2].step_idx, 1U);
  CHECK_EQ(records[2].time_ns, 77);
  CHECK(records[2].halt_reason == HaltReason::kGlobalHalt);
  CHECK_EQ(int{records[0].plugin}, 9);
  CHECK_EQ(int{records[0].branch}, 2);
}

TEST("runs are observed in any order, each at its own cost, and none that has ended") {
  Ring ring(16);
  SlotTable slots(4, ring.writer(), 0);
  for (std::uint64_t id = 0; id < 3; ++id) slots.admit(id, patient(), 0, Observation{8.0});
  slots.close(1, HaltReason::kCancelled, 5);
  Observation last{3.0};
  last.feasible = false;
  last.now_ns = 77;
  last.charge_us = 7.0;
  CHECK(slots.observe(2, last) == HaltReason::kRunning);
  Observation first{1.0};
  first.residual = 0.1;
  first.decided = HaltReason::kConfidence;
  first.charge_us = 5.0;
  CHECK(slots.observe(0, first) == HaltReason::kConfidence);
  CHECK_THROWS(sage::ConfigError, slots.observe(0, first));
  CHECK_THROWS(sage::ConfigError, slots.observe(1, first));
  const auto records = drain(ring);
  CHECK_EQ(records.size(), 6U);  // three first states, a closing record, one state each of the two that ran
  CHECK_EQ(records[4].run_id, 2U);
  CHECK((records[4].flags & sage::kFlagFeasible) == 0);
  CHECK_EQ(records[4].time_ns, 77);
  CHECK_EQ(records[5].run_id, 0U);
  CHECK(records[5].halt_reason == HaltReason::kConfidence);
  CHECK_EQ(records[5].residual, 0.1F);
  CHECK_EQ(slots.run(0).spent_us(), 5.0);
  CHECK_EQ(slots.run(1).spent_us(), 0.0);
  CHECK_EQ(slots.run(2).spent_us(), 7.0);
}

TEST("a table without slots is refused") {
  Ring ring(1);
  CHECK_THROWS(sage::ConfigError, SlotTable(0, ring.writer(), 0));
}
