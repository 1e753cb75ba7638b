#include <random>
#include <vector>

#include "check.h"
#include "core/trust.h"

namespace {

double population_variance(const std::vector<double>& values) {
  double mean = 0.0;
  for (const double value : values) mean += value / static_cast<double>(values.size());
  double sum = 0.0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return sum / static_cast<double>(values.size());
}

}  // namespace

TEST("updating step by step gives what a rescan of the whole history gives") {
  std::mt19937_64 random(7);
  std::normal_distribution<double> normal(-0.3, 2.0);
  sage::TrustStatistics trust;
  std::vector<double> changes;
  double falls = 0.0;
  for (int i = 0; i < 500; ++i) {
    const double dE = normal(random);
    changes.push_back(dE);
    falls += dE < 0.0 ? 1.0 : 0.0;
    trust.observe(dE);
    CHECK_NEAR(trust.monotonicity_ratio(), falls / static_cast<double>(changes.size()), 1e-15);
    CHECK_NEAR(trust.dE_variance(), population_variance(changes), 1e-12);  // rounding of 500 sums near 4
  }
}

TEST("a large common change does not drown the variance") {
  sage::TrustStatistics trust;
  for (const double dE : {1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0}) trust.observe(dE);
  CHECK_NEAR(trust.dE_variance(), 22.5, 1e-6);
}

TEST("before the first step the ratios are 0 and the rate is undefined") {
  const sage::TrustStatistics trust;
  CHECK_EQ(trust.n(), 0U);
  CHECK_EQ(trust.monotonicity_ratio(), 0.0);
  CHECK_EQ(trust.dE_variance(), 0.0);
  CHECK(std::isnan(trust.convergence_rate(1.0, 1.0)));
}

TEST("the rate divides by steps, and a change that is not finite is not counted") {
  sage::TrustStatistics trust;
  trust.observe(-1.0);
  trust.observe(-3.0);
  trust.observe(std::numeric_limits<double>::quiet_NaN());
  CHECK_EQ(trust.n(), 2U);
  CHECK_EQ(trust.convergence_rate(10.0, 6.0), 2.0);
  CHECK_EQ(trust.dE_variance(), 1.0);
}
