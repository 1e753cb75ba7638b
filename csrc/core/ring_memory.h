#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "core/errors.h"
#include "core/ring.h"

namespace sage {

/// A ring with its memory and its producer's end.
///
/// Owns:    its slots, from construction to destruction. Neither copyable nor movable: writer and readers
/// borrow them. Threads: see ring.h. A ring whose producer is on a device has no use for its writer.
class Ring {
 public:
  /// Ordinary memory. @throws ConfigError unless `capacity` is a power of two.
  explicit Ring(std::size_t capacity)
      : Ring(capacity, std::shared_ptr<RingSlot>(new RingSlot[checked(capacity)](),
                                                 std::default_delete<RingSlot[]>())) {}
  /// Zeroed memory of somebody else's making, kept until the end.
  /// @throws ConfigError unless `capacity` is a power of two.
  Ring(std::size_t capacity, std::shared_ptr<RingSlot> slots)
      : slots_(std::move(slots)), writer_({slots_.get(), checked(capacity)}) {}
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  std::size_t capacity() const { return writer_.span().capacity; }
  RingWriter& writer() { return writer_; }
  const RingWriter& writer() const { return writer_; }
  RingSpan span() const { return writer_.span(); }

  /// @throws ConfigError unless `capacity` is a power of two.
  static std::size_t checked(std::size_t capacity) {
    if (capacity == 0 || (capacity & (capacity - 1)) != 0) {
      throw ConfigError("ring capacity: expected a power of two, got " + std::to_string(capacity));
    }
    return capacity;
  }

 private:
  std::shared_ptr<RingSlot> slots_;
  RingWriter writer_;
};

}  // namespace sage
