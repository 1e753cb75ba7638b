#include "core/ring.h"

namespace sage {

namespace {

/// The ticket that a slot holds, whole or still being written. Only for a slot that was written.
std::uint64_t held_ticket(RingSpan ring, std::uint64_t ticket) {
  return (system_atomic::load_acquire(ring.slot(ticket).words[0]) - 1) / 2;
}

}  // namespace

std::size_t RingReader::drain(Record* out, std::size_t max_records) {
  std::size_t count = 0;
  int laps = 0;
  while (count < max_records) {
    const ReadStatus status = try_read(ring_, cursor_, out[count]);
    if (status == ReadStatus::kOk) {
      ++cursor_;
      ++count;
      continue;
    }
    if (status == ReadStatus::kEmpty || laps == 2) break;
    catch_up(laps == 0 ? ring_.capacity - 1 : ring_.capacity / 2);
    ++laps;
  }
  return count;
}

bool RingReader::ready() const {
  return system_atomic::load_acquire(ring_.slot(cursor_).words[0]) >= 2 * cursor_ + 2;
}

/// Moves the cursor to `distance` records before the newest one.
void RingReader::catch_up(std::uint64_t distance) {
  const std::uint64_t target = newest_ticket() - distance;
  lost_ += target - cursor_;
  cursor_ = target;
}

/// Ticket of the newest record, given that the cursor's slot was overtaken: from there on the slots hold
/// consecutive tickets up to the newest, and older ones after it, so that bisection finds the edge.
std::uint64_t RingReader::newest_ticket() const {
  const std::uint64_t start = held_ticket(ring_, cursor_);
  std::uint64_t known = 0;
  std::uint64_t beyond = ring_.capacity;
  while (beyond - known > 1) {
    const std::uint64_t middle = known + (beyond - known) / 2;
    (held_ticket(ring_, start + middle) >= start + middle ? known : beyond) = middle;
  }
  return start + known;
}

}  // namespace sage
