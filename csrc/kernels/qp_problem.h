#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/dense.h"

// min 1/2 x'Px + q'x  s.t.  l <= A x <= u,  lb <= x <= ub: what stays (P, A), what changes (q and the
// limits), and how far a point is from its solution.
namespace sage {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// A matrix in double: rows in packs, or compressed where it is mostly zeros. Immutable.
class Matrix {
 public:
  Matrix() = default;
  /// Copies a row-major [rows, columns]; compressed when fewer than `sparse_below` of its entries are not
  /// zero.
  Matrix(const double* values, std::size_t rows, std::size_t columns, double sparse_below);
  /// diag(row_scale) M[row_order, column_order] diag(column_scale), compressed if M is.
  Matrix(const Matrix& source, const std::vector<std::uint32_t>& row_order, const double* row_scale,
         const std::vector<std::uint32_t>& column_order, const double* column_scale);

  std::size_t rows() const { return rows_; }
  std::size_t columns() const { return columns_; }
  bool sparse() const { return sparse_; }

  /// out[rows] = M x; x has packed(columns).
  void times(const double* x, double* out) const;
  /// out[packed(columns)] = M'y.
  void transposed_times(const double* y, double* out) const;
  /// K = M, which is square, in the upper triangle; K is [packed(columns)]^2.
  void fill_upper(double* K) const;
  /// K += M' diag(weights) M in the upper triangle; K is [packed(columns)]^2.
  void add_gram(const double* weights, double* K) const;
  double row_dot(std::size_t row, const double* x) const;
  /// out[packed(columns)] += scale * row.
  void add_row(std::size_t row, double scale, double* out) const;

  /// Calls `visit(column, value)` for the entries of a row that may not be zero.
  template <class Visit>
  void for_row(std::size_t row, const Visit& visit) const {
    if (sparse_) {
      for (std::uint32_t k = starts_[row]; k < starts_[row + 1]; ++k) visit(places_[k], entries_[k]);
    } else {
      const double* values = packs_.data() + row * packed(columns_);
      for (std::size_t column = 0; column < columns_; ++column) visit(column, values[column]);
    }
  }

 private:
  std::size_t rows_ = 0;
  std::size_t columns_ = 0;
  bool sparse_ = false;
  Packs packs_;                        // dense: [rows, packed(columns)]
  std::vector<std::uint32_t> starts_;  // sparse: row r is at starts_[r] .. starts_[r + 1]
  std::vector<std::uint32_t> places_;
  std::vector<double> entries_;
};

enum class QpStatus : std::uint8_t {
  kRunning = 0,
  kSolved = 1,
  kMaxIterations = 2,
  kPrimalInfeasible = 3,
  kDualInfeasible = 4,
};

/// Copies of what changes from solve to solve. The limits are those of the rows of A, then those of x.
struct QpVectors {
  QpVectors(std::size_t n, std::size_t limits)
      : q(packed(n), 0.0), lower(packed(limits)), upper(packed(limits)) {}

  Packs q;
  Packs lower;
  Packs upper;
  std::size_t used = 0;  ///< limits that may bind: past them there is none
};

/// Distances from the solution, in the caller's units. The scales are the sizes of the terms that cancel.
struct QpResiduals {
  double primal = kInfinity;  ///< max violation of a limit
  double dual = kInfinity;    ///< max |Px + q + A'y|
  double gap = kInfinity;     ///< |primal objective - dual objective|
  double primal_scale = 0.0;  ///< max |Ax|
  double dual_scale = 0.0;    ///< max of |Px|, |q|, |A'y|
  double gap_scale = 0.0;     ///< max of the objectives' terms
  double objective = kInfinity;

  /// Whether each is at most eps + eps_rel * scale.
  bool within(double eps, double eps_rel) const;
};

/// The matrices of a family of QPs. `limits()` counts the rows of A and then the variables. Immutable.
class QpMatrices {
 public:
  /// Copies P [n, n], symmetric, and A [m, n], both finite.
  QpMatrices(const double* P, const double* A, std::size_t n, std::size_t m);
  /// Takes them over.
  QpMatrices(Matrix P, Matrix A);

  std::size_t n() const { return P_.rows(); }
  std::size_t m() const { return A_.rows(); }
  std::size_t limits() const { return m() + n(); }
  const Matrix& P() const { return P_; }
  const Matrix& A() const { return A_; }

  /// out[limits()] = (A x, x).
  void all_rows(const double* x, double* out) const;
  double row_dot(std::size_t limit, const double* x) const;
  void add_row(std::size_t limit, double scale, double* out) const;

  /// Where x and its multipliers y [limits()] stand; `rows` is all_rows(x), `work` has 3 * packed(n) and
  /// holds Px, A'y and Px + q + A'y afterwards.
  QpResiduals residuals(const QpVectors& vectors, const double* x, const double* rows, const double* y,
                        double* work) const;

 private:
  Matrix P_;
  Matrix A_;
};

/// Puts x between its limits, to the bit. @returns whether it was not.
bool clip(const QpMatrices& matrices, const QpVectors& vectors, double* x);

}  // namespace sage
