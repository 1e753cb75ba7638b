#pragma once

#include <cstdint>
#include <cstring>

#include "core/hd.h"

namespace sage {

/// An IEEE binary16 number. It is stored, never computed with: arithmetic is done in float.
struct Half {
  std::uint16_t bits;
};

SAGE_HD inline float to_float(float value) { return value; }

/// Exact.
SAGE_HD inline float to_float(Half value) {
  float result;
#if defined(__CUDA_ARCH__)
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
#else
  const std::uint32_t sign = (value.bits & 0x8000U) << 16;
  const std::uint32_t exponent = (value.bits >> 10) & 0x1FU;
  const std::uint32_t mantissa = value.bits & 0x3FFU;
  const std::uint32_t special = exponent == 0x1F ? 0x7F800000U : (exponent + 112) << 23;
  const std::uint32_t bits = sign | special | mantissa << 13;
  std::memcpy(&result, &bits, sizeof result);
  if (exponent == 0) result = (sign != 0 ? -0x1p-24F : 0x1p-24F) * static_cast<float>(mantissa);
#endif
  return result;
}

template <class T>
SAGE_HD T from_float(float value);

template <>
SAGE_HD inline float from_float<float>(float value) {
  return value;
}

/// To the nearest, ties to even; beyond 65504 to infinity.
template <>
SAGE_HD inline Half from_float<Half>(float value) {
  Half result;
#if defined(__CUDA_ARCH__)
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
#else
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t sign = bits >> 16 & 0x8000U;
  bits &= 0x7FFFFFFFU;
  std::uint32_t magnitude;
  if (bits > 0x7F800000U) {
    magnitude = 0x7FFFU;  // NaN, as the GPU writes it
  } else if (bits >= 0x477FF000U) {
    magnitude = 0x7C00U;
  } else if (bits < 0x38800000U) {  // below the normal numbers: units of 2^-24, rounded by the addition
    float units;
    std::memcpy(&units, &bits, sizeof units);
    units += 0.5F;  // the last bit of floats in [0.5, 1) is 2^-24
    std::memcpy(&magnitude, &units, sizeof magnitude);
    magnitude -= 0x3F000000U;
  } else {
    magnitude = (bits - 0x38000000U + 0xFFFU + (bits >> 13 & 1U)) >> 13;
  }
  result.bits = static_cast<std::uint16_t>(sign | magnitude);
#endif
  return result;
}

}  // namespace sage
