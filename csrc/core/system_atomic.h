#pragma once

#include <cstdint>

#include "core/hd.h"

// Loads, stores and fences on 8-byte words of borrowed memory. C++17 has no atomic_ref, hence the compiler's
// builtins. Read-modify-write is left out on purpose: on memory mapped into a GPU only plain loads and stores
// are atomic.
namespace sage::system_atomic {

SAGE_HD inline std::uint64_t load_relaxed(const std::uint64_t& word) {
  return __atomic_load_n(&word, __ATOMIC_RELAXED);
}
SAGE_HD inline std::uint64_t load_acquire(const std::uint64_t& word) {
  return __atomic_load_n(&word, __ATOMIC_ACQUIRE);
}
SAGE_HD inline void store_relaxed(std::uint64_t& word, std::uint64_t value) {
  __atomic_store_n(&word, value, __ATOMIC_RELAXED);
}
SAGE_HD inline void store_release(std::uint64_t& word, std::uint64_t value) {
  __atomic_store_n(&word, value, __ATOMIC_RELEASE);
}
SAGE_HD inline void fence_acquire() { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
SAGE_HD inline void fence_release() { __atomic_thread_fence(__ATOMIC_RELEASE); }

}  // namespace sage::system_atomic
