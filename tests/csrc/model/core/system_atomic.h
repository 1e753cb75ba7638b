#pragma once

#include <cstdint>
#include <relacy/relacy.hpp>
// It takes the standard's names, which the ring's writer uses for a counter of its own.
#undef memory_order_relaxed
#undef memory_order_acquire
#undef memory_order_release

#include "core/hd.h"

// Stands in for csrc/core/system_atomic.h: each word of a ring is played by an atomic of relacy, which
// explores what C++'s memory model lets a load see. The ring's own code is compiled unchanged over it.
//
// A mutant weakens one of the orders (SAGE_MUTANT = its name); the checker has to find each of them out.
namespace sage::system_atomic {

enum class Mutant { kNone, kStoreRelease, kLoadAcquire, kFenceRelease, kFenceAcquire };
inline constexpr Mutant kMutant = Mutant::SAGE_MUTANT;

/// The words that are played, and where the ring believes they are.
struct Shadow {
  const std::uint64_t* first = nullptr;
  rl::atomic<std::uint64_t>* words = nullptr;
};
inline Shadow shadow;

inline rl::atomic<std::uint64_t>& played(const std::uint64_t& word) {
  return shadow.words[&word - shadow.first];
}

inline rl::memory_order unless(Mutant mutant, rl::memory_order order) {
  return kMutant == mutant ? rl::mo_relaxed : order;
}

inline std::uint64_t load_relaxed(const std::uint64_t& word) { return played(word)($).load(rl::mo_relaxed); }
inline std::uint64_t load_acquire(const std::uint64_t& word) {
  return played(word)($).load(unless(Mutant::kLoadAcquire, rl::mo_acquire));
}
inline void store_relaxed(std::uint64_t& word, std::uint64_t value) {
  played(word)($).store(value, rl::mo_relaxed);
}
inline void store_release(std::uint64_t& word, std::uint64_t value) {
  played(word)($).store(value, unless(Mutant::kStoreRelease, rl::mo_release));
}
inline void fence_acquire() {
  if (kMutant != Mutant::kFenceAcquire) rl::atomic_thread_fence(rl::mo_acquire, $);
}
inline void fence_release() {
  if (kMutant != Mutant::kFenceRelease) rl::atomic_thread_fence(rl::mo_release, $);
}

}  // namespace sage::system_atomic
