#pragma once

#include <cstdint>

#include "core/hd.h"

// Loads, stores and fences on 8-byte words of borrowed memory, seen by the CPU and the GPU alike. C++17 has
// no atomic_ref, hence the compiler's builtins, and PTX of the same meaning on the GPU. Read-modify-write is
// left out on purpose: on memory mapped into a GPU only plain loads and stores are atomic.
namespace sage::system_atomic {

#if defined(__CUDA_ARCH__)

SAGE_HD inline std::uint64_t load_relaxed(const std::uint64_t& word) {
  std::uint64_t value;
  asm volatile("ld.relaxed.sys.u64 %0, [%1];" : "=l"(value) : "l"(&word) : "memory");
  return value;
}
SAGE_HD inline std::uint64_t load_acquire(const std::uint64_t& word) {
  std::uint64_t value;
  asm volatile("ld.acquire.sys.u64 %0, [%1];" : "=l"(value) : "l"(&word) : "memory");
  return value;
}
SAGE_HD inline void store_relaxed(std::uint64_t& word, std::uint64_t value) {
  asm volatile("st.relaxed.sys.u64 [%0], %1;" ::"l"(&word), "l"(value) : "memory");
}
SAGE_HD inline void store_release(std::uint64_t& word, std::uint64_t value) {
  asm volatile("st.release.sys.u64 [%0], %1;" ::"l"(&word), "l"(value) : "memory");
}
SAGE_HD inline void fence_acquire() { asm volatile("fence.acq_rel.sys;" ::: "memory"); }
SAGE_HD inline void fence_release() { asm volatile("fence.acq_rel.sys;" ::: "memory"); }

#else

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

#endif

}  // namespace sage::system_atomic
