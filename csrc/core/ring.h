#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/hd.h"
#include "core/record.h"
#include "core/system_atomic.h"

// The mailbox: a ring of records under a sequence lock.
//
// Thread safety: one producer thread; any number of readers, each with its own cursor and its own thread.
//
// Invariants:
//  1. Slot `t % capacity` holds ticket t. Its word 0 is 2t+1 while t is being written and 2t+2 once it is
//  whole.
//  2. Every access to a slot is an atomic 8-byte load or store, so that no word can tear.
//  3. Readers never write, and the producer never waits: who is overtaken finds out, and counts what it lost.
//  4. For each reader that has caught up: records read + lost == published.
namespace sage {

/// A record's bytes as the words that the two sides exchange. All zero: never written.
struct alignas(64) RingSlot {
  std::uint64_t words[8];
};
static_assert(sizeof(RingSlot) == sizeof(Record), "a ring slot is a record");

/// Borrowed memory of a ring. `capacity` is a power of two; whoever allocated it outlives all who use it.
struct RingSpan {
  RingSlot* slots;
  std::uint64_t capacity;

  SAGE_HD RingSlot& slot(std::uint64_t ticket) const { return slots[ticket & (capacity - 1)]; }
};

/// Writes `record` as number `ticket`; tickets count from 0 without gaps. `record.seq` is ignored.
SAGE_HD inline void publish(RingSpan ring, std::uint64_t ticket, const Record& record) {
  RingSlot source;
  std::memcpy(&source, &record, sizeof source);
  RingSlot& target = ring.slot(ticket);
  system_atomic::store_relaxed(target.words[0], 2 * ticket + 1);
  system_atomic::fence_release();
  for (int i = 1; i < 8; ++i) system_atomic::store_relaxed(target.words[i], source.words[i]);
  system_atomic::store_release(target.words[0], 2 * ticket + 2);
}

enum class ReadStatus { kOk, kEmpty, kLapped };

/// Reads number `ticket` into `record`, whose `seq` becomes the ticket. `record` is unspecified unless kOk.
SAGE_HD inline ReadStatus try_read(RingSpan ring, std::uint64_t ticket, Record& record) {
  const RingSlot& source = ring.slot(ticket);
  const std::uint64_t whole = 2 * ticket + 2;
  const std::uint64_t before = system_atomic::load_acquire(source.words[0]);
  if (before < whole) return ReadStatus::kEmpty;
  if (before > whole) return ReadStatus::kLapped;
  RingSlot copy;
  copy.words[0] = ticket;
  for (int i = 1; i < 8; ++i) copy.words[i] = system_atomic::load_relaxed(source.words[i]);
  system_atomic::fence_acquire();
  // The producer may have come round meanwhile.
  if (system_atomic::load_relaxed(source.words[0]) != before) return ReadStatus::kLapped;
  std::memcpy(&record, &copy, sizeof record);
  return ReadStatus::kOk;
}

/// The producer's end: hands out the tickets. Borrows the ring's memory.
class RingWriter {
 public:
  explicit RingWriter(RingSpan ring) : ring_(ring) {}

  /// Producer thread only. Never blocks; overwrites the oldest record.
  void push(const Record& record) {
    const std::uint64_t ticket = published_.load(std::memory_order_relaxed);
    publish(ring_, ticket, record);
    published_.store(ticket + 1, std::memory_order_release);
  }

  /// Records pushed so far. Any thread.
  std::uint64_t published() const { return published_.load(std::memory_order_acquire); }
  RingSpan span() const { return ring_; }

 private:
  RingSpan ring_;
  std::atomic<std::uint64_t> published_{0};
};

/// One reader: its cursor and what it lost. Borrows the ring's memory. One thread at a time.
class RingReader {
 public:
  explicit RingReader(RingSpan ring) : ring_(ring) {}

  /// Copies up to `max_records` records to `out`, oldest first, and returns how many. Never blocks.
  ///
  /// When overtaken, goes on at the oldest record that is surely intact and adds what it missed to `lost()`;
  /// when overtaken there again, the producer is at its heels, and it leaves half a ring between them.
  std::size_t drain(Record* out, std::size_t max_records);

  /// Whether `drain` has something to do: a record, or a loss to find out about.
  bool ready() const;

  /// Ticket of the next record to read: what was read so far, plus what was lost.
  std::uint64_t cursor() const { return cursor_; }
  std::uint64_t lost() const { return lost_; }

 private:
  void catch_up(std::uint64_t distance);
  std::uint64_t newest_ticket() const;

  RingSpan ring_;
  std::uint64_t cursor_ = 0;
  std::uint64_t lost_ = 0;
};

}  // namespace sage
