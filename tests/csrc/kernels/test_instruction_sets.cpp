#include <cstring>
#include <random>
#include <vector>

#include "check.h"
#include "kernels/arithmetic.h"

namespace {

constexpr std::size_t kCount = 4096 - 7;  // a tail too

struct Outcome {
  std::vector<float> z = std::vector<float>(kCount);
  std::vector<float> noise = std::vector<float>(kCount + 4);
  Sums sums{};
};

Outcome run(Sums (*arithmetic)(float*, const float*, float*, std::size_t)) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  Outcome outcome;
  std::vector<float> delta(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    outcome.z[i] = normal(random);
    delta[i] = normal(random);
  }
  outcome.sums = arithmetic(outcome.z.data(), delta.data(), outcome.noise.data(), kCount);
  return outcome;
}

void check_same_bits(const Outcome& a, const Outcome& b) {
  CHECK(std::memcmp(a.z.data(), b.z.data(), kCount * sizeof(float)) == 0);
  CHECK(std::memcmp(a.noise.data(), b.noise.data(), kCount * sizeof(float)) == 0);
  CHECK_EQ(a.sums.change, b.sums.change);
  CHECK_EQ(a.sums.state, b.sums.state);
}

}  // namespace

TEST("AVX2 code gives the bits of SSE2 code") {
  if (!__builtin_cpu_supports("avx2")) return;
  check_same_bits(run(arithmetic_v3), run(arithmetic_v1));
}

TEST("AVX-512 code gives the bits of SSE2 code") {
  if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl")) return;
  check_same_bits(run(arithmetic_v4), run(arithmetic_v1));
}
