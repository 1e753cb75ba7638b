#include <random>

#include "check.h"
#include "kernels/dense.h"

using namespace sage;

namespace {

struct Random {
  explicit Random(unsigned seed) : engine(seed) {}
  double operator()() { return normal(engine); }
  std::mt19937 engine;
  std::normal_distribution<double> normal;
};

/// Rows with zeros where they are padded.
Packs random_rows(Random& random, std::size_t rows, std::size_t columns) {
  Packs made(rows * packed(columns), 0.0);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < columns; ++c) made[r * packed(columns) + c] = random();
  }
  return made;
}

/// G'G + I, symmetric positive definite, with entries further than `band` from the diagonal left out of G.
Packs positive_definite(Random& random, std::size_t n, std::size_t band) {
  const std::size_t stride = packed(n);
  Packs G = random_rows(random, n, n);
  Packs K(stride * stride, 0.0);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      if (i > j + band || j > i + band) G[i * stride + j] = 0.0;
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      double sum = i == j ? 1.0 : 0.0;
      for (std::size_t k = 0; k < n; ++k) sum += G[k * stride + i] * G[k * stride + j];
      K[i * stride + j] = sum;
    }
  }
  return K;
}

}  // namespace

TEST("combine, dots and add_gram give the sums that plain loops give, at odd sizes") {
  Random random(1);
  for (const std::size_t n : {1, 7, 8, 9, 16, 23, 31, 40, 57}) {
    for (const std::size_t m : {0, 1, 3, 4, 5, 12}) {
      const std::size_t stride = packed(n);
      const Packs rows = random_rows(random, m, n);
      const Packs weights = random_rows(random, 1, m);
      const Packs x = random_rows(random, 1, n);
      Packs combined(stride), products(packed(m)), K(stride * stride, 0.0);
      combine(weights.data(), rows.data(), m, stride, stride, x.data(), -2.0, combined.data());
      dots(rows.data(), m, stride, stride, x.data(), products.data());
      add_gram(weights.data(), rows.data(), m, stride, n, K.data());
      for (std::size_t c = 0; c < n; ++c) {
        double sum = 0.0;
        for (std::size_t r = 0; r < m; ++r) sum += weights[r] * rows[r * stride + c];
        CHECK_NEAR(combined[c], x[c] - 2.0 * sum, 1e-12);
        for (std::size_t d = c; d < n; ++d) {
          double entry = 0.0;
          for (std::size_t r = 0; r < m; ++r)
            entry += weights[r] * rows[r * stride + c] * rows[r * stride + d];
          CHECK_NEAR(K[c * stride + d], entry, 1e-12);
        }
      }
      for (std::size_t r = 0; r < m; ++r) {
        double sum = 0.0;
        for (std::size_t c = 0; c < n; ++c) sum += rows[r * stride + c] * x[c];
        CHECK_NEAR(products[r], sum, 1e-12);
      }
    }
  }
}

TEST("a Cholesky factor solves its system, full or banded, at odd sizes") {
  Random random(2);
  for (const std::size_t n : {1, 3, 4, 5, 8, 9, 16, 31, 50, 77}) {
    for (const std::size_t band : {std::size_t{0}, std::size_t{2}, n}) {
      const std::size_t stride = packed(n);
      const Packs K = positive_definite(random, n, band);
      Cholesky factor(n);
      std::copy(K.begin(), K.end(), factor.matrix());
      CHECK(factor.factor(0.0));
      const Packs b = random_rows(random, 1, n);
      Packs x = b;
      factor.solve(x.data());
      for (std::size_t i = 0; i < n; ++i) {
        double sum = 0.0;
        for (std::size_t j = 0; j < n; ++j) sum += K[i * stride + j] * x[j];
        CHECK_NEAR(sum, b[i], 1e-9);
      }
    }
  }
}

TEST("a matrix that is not positive definite has no factor") {
  for (const std::size_t n : {1, 5, 12}) {
    Cholesky factor(n);
    std::fill_n(factor.matrix(), factor.stride() * factor.stride(), 0.0);
    for (std::size_t i = 0; i < n; ++i) factor.matrix()[i * factor.stride() + i] = i + 1 == n ? -1.0 : 1.0;
    CHECK(!factor.factor(0.0));
  }
}

TEST("all_finite and all_ordered find one bad number wherever it is") {
  for (std::size_t bad = 0; bad < 19; ++bad) {
    Packs values(19, 1.0), upper(19, 2.0);
    CHECK(all_finite(values.data(), 19));
    CHECK(all_ordered(values.data(), upper.data(), 19));
    values[bad] = std::nan("");
    CHECK(!all_finite(values.data(), 19));
    CHECK(!all_ordered(values.data(), upper.data(), 19));
    values[bad] = 3.0;
    CHECK(!all_ordered(values.data(), upper.data(), 19));
    CHECK_NEAR(max_violation(values.data(), values.data(), upper.data(), 19), 1.0, 0.0);
  }
}
