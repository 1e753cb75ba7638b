#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "check.h"
#include "core/half.h"

namespace {

std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

/// The value by the definition of binary16.
double value_of(std::uint16_t bits) {
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  const int exponent = bits >> 10 & 0x1F;
  const int mantissa = bits & 0x3FF;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

}  // namespace

TEST("every half that is a number has its value, and comes back from it") {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const sage::Half half{static_cast<std::uint16_t>(bits)};
    if ((bits & 0x7C00) == 0x7C00) continue;
    CHECK_EQ(static_cast<double>(sage::to_float(half)), value_of(half.bits));
    CHECK_EQ(bits_of(sage::to_float(half)) >> 31, bits >> 15);  // minus zero too
    CHECK_EQ(sage::from_float<sage::Half>(sage::to_float(half)).bits, half.bits);
  }
}

TEST("infinity and NaN stay what they are") {
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK_EQ(sage::to_float(sage::from_float<sage::Half>(infinity)), infinity);
  CHECK_EQ(sage::to_float(sage::from_float<sage::Half>(-infinity)), -infinity);
  CHECK(std::isnan(sage::to_float(sage::from_float<sage::Half>(std::nanf("")))));
  CHECK_EQ(sage::to_float(sage::from_float<sage::Half>(65519.0F)), 65504.0F);
  CHECK_EQ(sage::to_float(sage::from_float<sage::Half>(65520.0F)), infinity);
}

TEST("a float becomes the nearest half, and of two the even one") {
  std::mt19937 random(1);
  for (int i = 0; i < 300'000; ++i) {
    const std::uint32_t bits =
        0x2F000000U + static_cast<std::uint32_t>(random()) % 0x18700000U;  // 1e-10 .. 65000
    float value;
    std::memcpy(&value, &bits, sizeof value);
    const std::uint16_t got = sage::from_float<sage::Half>(value).bits;
    const double error = std::fabs(value_of(got) - static_cast<double>(value));
    for (const int step : {-1, 1}) {
      if (got == 0 && step < 0) continue;
      const auto other = static_cast<std::uint16_t>(got + step);
      const double other_error = std::fabs(value_of(other) - static_cast<double>(value));
      CHECK(error < other_error || (error == other_error && got % 2 == 0));
    }
  }
}

TEST("halfway between two halves goes to the even one") {
  for (std::uint32_t bits = 0; bits < 0x7BFF; ++bits) {
    const float middle = static_cast<float>(
        (value_of(static_cast<std::uint16_t>(bits)) + value_of(static_cast<std::uint16_t>(bits + 1))) / 2);
    CHECK_EQ(sage::from_float<sage::Half>(middle).bits, bits + bits % 2);
  }
}
