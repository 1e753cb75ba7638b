#pragma once

#include <cstdint>

#include "core/hd.h"

namespace sage {

struct PhiloxBlock {
  std::uint32_t words[4];
};

/// Philox4x32-10: random bits as a pure function of (counter, key), so that no generator state is kept or
/// shared. Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
SAGE_HD inline PhiloxBlock philox4x32(PhiloxBlock counter, std::uint64_t key) {
  std::uint32_t key_low = static_cast<std::uint32_t>(key);
  std::uint32_t key_high = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * counter.words[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57} * counter.words[2];
    counter = {
        {static_cast<std::uint32_t>(b >> 32) ^ counter.words[1] ^ key_low, static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ counter.words[3] ^ key_high, static_cast<std::uint32_t>(a)}};
    key_low += 0x9E3779B9;
    key_high += 0xBB67AE85;
  }
  return counter;
}

}  // namespace sage
