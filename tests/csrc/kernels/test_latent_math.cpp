#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "check.h"
#include "kernels/latent_math.h"

TEST("the logarithm is right to float precision over (0, 1]") {
  for (int i = 1; i <= 1 << 24; i += 37) {
    const float u = static_cast<float>(i) * 0x1p-24F;
    const double exact = std::log(static_cast<double>(u));
    CHECK_NEAR(static_cast<double>(sage::natural_log(u)), exact, 3e-7 * std::fabs(exact) + 1e-9);
  }
  CHECK_EQ(sage::natural_log(1.0F), 0.0F);
}

TEST("sine and cosine are right to float precision over a turn") {
  const double turn = 2.0 * std::acos(-1.0);
  for (int i = 0; i < 1 << 24; i += 37) {
    const float t = static_cast<float>(i) * 0x1p-24F;
    const sage::SinCos got = sage::sin_cos_turns(t);
    CHECK_NEAR(static_cast<double>(got.sin), std::sin(turn * static_cast<double>(t)), 4e-7);
    CHECK_NEAR(static_cast<double>(got.cos), std::cos(turn * static_cast<double>(t)), 4e-7);
  }
}

TEST("noise is Box and Muller's transform of Philox's bits") {
  const double turn = 2.0 * std::acos(-1.0);
  const sage::NoiseKey key{(5ULL << 32) + 4, (7ULL << 32) + 6, 3};
  constexpr std::uint32_t kBlocks = 1000;
  std::vector<float> noise(4 * kBlocks);
  sage::fill_normal(key, 0, noise.size(), noise.data());
  for (std::uint32_t block = 0; block < kBlocks; ++block) {
    const sage::PhiloxBlock bits = sage::philox4x32({{block, 3, 6, 7}}, key.seed);
    for (std::size_t pair = 0; pair < 2; ++pair) {
      const double u = ((bits.words[2 * pair] >> 8) + 1) / 16777216.0;
      const double angle = turn * ((bits.words[2 * pair + 1] >> 8) / 16777216.0);
      const double radius = std::sqrt(-2.0 * std::log(u));
      const float* got = noise.data() + 4 * block + 2 * pair;
      // Logarithm, root, sine and product are each right to a few units in the last place of at most 6.
      CHECK_NEAR(static_cast<double>(got[0]), radius * std::cos(angle), 6e-6);
      CHECK_NEAR(static_cast<double>(got[1]), radius * std::sin(angle), 6e-6);
    }
  }
}

TEST("noise is standard normal, and neighbours know nothing of each other") {
  constexpr std::size_t kCount = 400'000;
  std::vector<float> noise(kCount);
  sage::fill_normal({4, 0, 0}, 0, kCount, noise.data());
  double sums[5] = {};  // of the powers 1 to 4, and of each times its neighbour
  for (std::size_t i = 0; i < kCount; ++i) {
    const auto x = static_cast<double>(noise[i]);
    for (int power = 1; power <= 4; ++power) sums[power - 1] += std::pow(x, power);
    if (i > 0) sums[4] += x * static_cast<double>(noise[i - 1]);
  }
  const double expected[] = {0.0, 1.0, 0.0, 3.0, 0.0};
  const double variances[] = {1.0, 2.0, 15.0, 96.0, 1.0};
  for (std::size_t i = 0; i < 5; ++i) {
    const double five_errors = 5.0 * std::sqrt(variances[i] / kCount);
    CHECK_NEAR(sums[i] / kCount, expected[i], five_errors);
  }
  const double quantiles[][2] = {{-1.959964, 0.025}, {-0.6744898, 0.25}, {1.281552, 0.9}};
  for (const auto& [quantile, share] : quantiles) {
    double below = 0.0;
    for (const float x : noise) below += static_cast<double>(x) < quantile ? 1.0 : 0.0;
    const double five_errors = 5.0 * std::sqrt(share * (1.0 - share) / kCount);
    CHECK_NEAR(below / kCount, share, five_errors);
  }
}

TEST("a stretch of noise does not depend on where it is cut") {
  const sage::NoiseKey key{3, 1ULL << 40, 2};
  std::vector<float> whole(64);
  std::vector<float> part(32);
  sage::fill_normal(key, 0, 64, whole.data());
  sage::fill_normal(key, 32, 30, part.data());
  for (std::size_t i = 0; i < 30; ++i) CHECK_EQ(part[i], whole[32 + i]);
}

TEST("seed, run and step each give other noise") {
  const sage::NoiseKey keys[] = {
      {1, 1, 1}, {2, 1, 1}, {1, 2, 1}, {1, 1, 2}, {1, 1 + (1ULL << 32), 1}, {1 + (1ULL << 32), 1, 1}};
  std::vector<float> first(4);
  std::vector<float> other(4);
  for (const auto& a : keys) {
    for (const auto& b : keys) {
      if (&a == &b) continue;
      sage::fill_normal(a, 0, 4, first.data());
      sage::fill_normal(b, 0, 4, other.data());
      CHECK(first != other);
    }
  }
}

TEST("finite means neither infinite nor NaN, wherever it stands") {
  for (const std::size_t count : {1U, 15U, 16U, 100U}) {
    for (std::size_t at = 0; at < count; ++at) {
      for (const float poison :
           {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
        std::vector<float> values(count, std::numeric_limits<float>::max());
        CHECK(sage::all_finite(values.data(), count));
        values[at] = poison;
        CHECK(!sage::all_finite(values.data(), count));
      }
    }
  }
}

// FNV-1a over the bits; the expected value was computed on x86-64 and on aarch64.
TEST("a noisy step gives the same bits on every machine") {
  constexpr std::size_t kCount = 4089;
  std::vector<float> z(kCount);
  std::vector<float> delta(kCount);
  std::vector<float> noise(kCount + 3);
  for (std::size_t i = 0; i < kCount; ++i) {
    z[i] = static_cast<float>((i * 7919) % 1000) / 333 - 1.5F;
    delta[i] = static_cast<float>((i * 104729) % 1000) / 400 - 1.2F;
  }
  sage::fill_normal({11, 12, 13}, 0, kCount, noise.data());
  const sage::Move move{0.37F, 0.11F, -1.5F, 1.25F};
  const sage::ChunkSums sums = sage::update_chunk<true>(move, z.data(), delta.data(), noise.data(), kCount);
  std::uint64_t hash = 14695981039346656037ULL;
  for (const float value : z) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    hash = (hash ^ bits) * 1099511628211ULL;
  }
  CHECK_EQ(hash, 5361432410208450467ULL);
  CHECK_EQ(sums.change, 0x1.35876e8p+8);
  CHECK_EQ(sums.state, 0x1.73f791cp+11);
}
