#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/hd.h"
#include "kernels/philox.h"

// The arithmetic of one latent step on a chunk of one slot. No libm and no contraction (-ffp-contract=off):
// the same bits from every instruction set. Loops over kLanes independent lanes are what the compiler turns
// into vectors.
namespace sage {

inline constexpr std::size_t kLanes = 16;       ///< partial float sums per chunk
inline constexpr std::size_t kChunk = 4096;     ///< elements per chunk: short enough for float sums
inline constexpr std::size_t kPhiloxWords = 4;  ///< normal numbers per Philox block

/// Sums over a chunk.
struct ChunkSums {
  double change;  ///< (z_new - z_old)^2
  double state;   ///< z_new^2
};

/// NaN passes through both comparisons.
SAGE_HD inline float clamp(float value, float lo, float hi) {
  value = lo > value ? lo : value;
  return hi < value ? hi : value;
}

/// ln(x) for normal x > 0: 2 artanh((m - 1) / (m + 1)) + e ln 2, with x = m 2^e and m in [1/sqrt 2, sqrt 2).
SAGE_HD inline float natural_log(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const std::uint32_t shifted = bits - 0x3F3504F3U;  // the bits of 1/sqrt 2
  const std::int32_t exponent = static_cast<std::int32_t>(shifted) >> 23;
  const std::uint32_t mantissa_bits = (shifted & 0x007FFFFFU) + 0x3F3504F3U;
  float mantissa;
  std::memcpy(&mantissa, &mantissa_bits, sizeof mantissa);
  const float s = (mantissa - 1.0F) / (mantissa + 1.0F);
  const float q = s * s;
  const float series = 2.0F + q * (2.0F / 3 + q * (2.0F / 5 + q * (2.0F / 7 + q * (2.0F / 9))));
  return s * series + static_cast<float>(exponent) * 0.69314718F;
}

struct SinCos {
  float sin;
  float cos;
};

/// Sine and cosine of 2 pi t for t in [0, 1): Taylor series on the nearest quarter turn.
SAGE_HD inline SinCos sin_cos_turns(float t) {
  const std::int32_t quarter = static_cast<std::int32_t>(4.0F * t + 0.5F);
  const float x = (4.0F * t - static_cast<float>(quarter)) * 1.57079633F;
  const float q = x * x;
  const float sine = x * (1.0F - q * (1.0F / 6) * (1.0F - q * (1.0F / 20) * (1.0F - q * (1.0F / 42))));
  const float cosine =
      1.0F - q * 0.5F * (1.0F - q * (1.0F / 12) * (1.0F - q * (1.0F / 30) * (1.0F - q * (1.0F / 56))));
  const bool swap = (quarter & 1) != 0;
  const float s = swap ? cosine : sine;
  const float c = swap ? sine : cosine;
  return {(quarter & 2) != 0 ? -s : s, ((quarter + 1) & 2) != 0 ? -c : c};
}

/// Which stretch of the random numbers: they depend on nothing else.
struct NoiseKey {
  std::uint64_t seed;
  std::uint64_t run_id;
  std::uint32_t step;
};

/// Box and Muller's transform of one Philox block: the normal numbers of elements 4 * block .. 4 * block + 3.
SAGE_HD inline void normal_block(const NoiseKey& key, std::uint32_t block, float (&out)[kPhiloxWords]) {
  const PhiloxBlock bits = philox4x32({{block, key.step, static_cast<std::uint32_t>(key.run_id),
                                        static_cast<std::uint32_t>(key.run_id >> 32)}},
                                      key.seed);
  for (std::size_t pair = 0; pair < 2; ++pair) {
    // 24 bits each: u in (0, 1], t in [0, 1), both exact in a float.
    const float u = static_cast<float>(static_cast<std::int32_t>(bits.words[2 * pair] >> 8) + 1) * 0x1p-24F;
    const float t = static_cast<float>(static_cast<std::int32_t>(bits.words[2 * pair + 1] >> 8)) * 0x1p-24F;
    const float radius = std::sqrt(-2.0F * natural_log(u));
    const SinCos angle = sin_cos_turns(t);
    out[2 * pair] = radius * angle.cos;
    out[2 * pair + 1] = radius * angle.sin;
  }
}

/// Normal numbers of elements first .. first + count; `first` is a multiple of 4, and `noise` has room for
/// the next multiple of 4 after `count`.
inline void fill_normal(const NoiseKey& key, std::size_t first, std::size_t count, float* noise) {
  const std::uint32_t first_block = static_cast<std::uint32_t>(first / kPhiloxWords);
  const std::size_t blocks = (count + kPhiloxWords - 1) / kPhiloxWords;
  for (std::size_t block = 0; block < blocks; ++block) {
    float normal[kPhiloxWords];
    normal_block(key, first_block + static_cast<std::uint32_t>(block), normal);
    for (std::size_t word = 0; word < kPhiloxWords; ++word) noise[kPhiloxWords * block + word] = normal[word];
  }
}

/// What a step does to each element.
struct Move {
  float step_size;
  float noise_sigma;
  float lo;
  float hi;

  SAGE_HD float operator()(float z, float delta) const { return clamp(z + step_size * delta, lo, hi); }
  SAGE_HD float operator()(float z, float delta, float noise) const {
    return clamp(z + step_size * delta + noise_sigma * noise, lo, hi);
  }
};

/// z <- clamp(z + step_size * delta + noise_sigma * noise, lo, hi), summed on the way. `noise` is read only
/// if kNoisy. The sums stay in registers because nothing but constants indexes them: hence a second pair for
/// the tail.
template <bool kNoisy>
inline ChunkSums update_chunk(const Move& move, float* __restrict z, const float* __restrict delta,
                              const float* __restrict noise, std::size_t count) {
  float change[kLanes] = {};
  float state[kLanes] = {};
  const std::size_t even = count - count % kLanes;
  for (std::size_t i = 0; i < even; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const float before = z[i + lane];
      const float after =
          kNoisy ? move(before, delta[i + lane], noise[i + lane]) : move(before, delta[i + lane]);
      z[i + lane] = after;
      change[lane] += (after - before) * (after - before);
      state[lane] += after * after;
    }
  }
  float tail_change[kLanes] = {};
  float tail_state[kLanes] = {};
  for (std::size_t i = even; i < count; ++i) {
    const float before = z[i];
    const float after = kNoisy ? move(before, delta[i], noise[i]) : move(before, delta[i]);
    z[i] = after;
    tail_change[i - even] = (after - before) * (after - before);
    tail_state[i - even] = after * after;
  }
  ChunkSums sums{0.0, 0.0};
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    sums.change += static_cast<double>(change[lane] + tail_change[lane]);
    sums.state += static_cast<double>(state[lane] + tail_state[lane]);
  }
  return sums;
}

/// Whether every value is a finite number: whether no exponent has all its bits set.
inline bool all_finite(const float* values, std::size_t count) {
  constexpr std::uint32_t kExponent = 0x7F800000;
  std::uint32_t others = 0;
  for (std::size_t i = 0; i < count; ++i) {
    std::uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    others |= (bits & kExponent) == kExponent ? 1U : 0U;
  }
  return others == 0;
}

}  // namespace sage
