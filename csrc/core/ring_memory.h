#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/errors.h"
#include "core/ring.h"

namespace sage {

/// A ring in ordinary memory with its producer's end.
///
/// Owns:    its slots, from construction to destruction. Neither copyable nor movable: writer and readers
/// borrow them. Threads: see ring.h.
class Ring {
 public:
  /// @throws ConfigError unless `capacity` is a power of two.
  explicit Ring(std::size_t capacity) : slots_(checked(capacity)), writer_({slots_.data(), slots_.size()}) {}
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  std::size_t capacity() const { return slots_.size(); }
  RingWriter& writer() { return writer_; }
  const RingWriter& writer() const { return writer_; }
  RingSpan span() const { return writer_.span(); }

 private:
  static std::size_t checked(std::size_t capacity) {
    if (capacity == 0 || (capacity & (capacity - 1)) != 0) {
      throw ConfigError("ring capacity: expected a power of two, got " + std::to_string(capacity));
    }
    return capacity;
  }

  std::vector<RingSlot> slots_;
  RingWriter writer_;
};

}  // namespace sage
