#include "kernels/qp_problem.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

namespace sage {

namespace {

constexpr std::size_t kWorthCompressing = std::size_t{1}
                                          << 14;  // entries; a smaller matrix is faster in packs
constexpr double kSparseBelow = 0.1;

double sparse_below(std::size_t rows, std::size_t columns) {
  return rows * columns < kWorthCompressing ? 0.0 : kSparseBelow;
}

}  // namespace

Matrix::Matrix(const double* values, std::size_t rows, std::size_t columns, double sparse_below)
    : rows_(rows), columns_(columns) {
  const std::size_t entries = rows * columns;
  if (sparse_below > 0.0) {
    const auto used =
        static_cast<double>(entries) - static_cast<double>(std::count(values, values + entries, 0.0));
    sparse_ = used < sparse_below * static_cast<double>(entries);
  }
  if (!sparse_) {
    const std::size_t stride = packed(columns);
    packs_.resize(rows * stride);
    for (std::size_t r = 0; r < rows; ++r) {
      std::memcpy(packs_.data() + r * stride, values + r * columns, columns * sizeof(double));
      std::fill_n(packs_.data() + r * stride + columns, stride - columns, 0.0);
    }
    return;
  }
  starts_.push_back(0);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < columns; ++c) {
      if (values[r * columns + c] == 0.0) continue;
      places_.push_back(static_cast<std::uint32_t>(c));
      entries_.push_back(values[r * columns + c]);
    }
    starts_.push_back(static_cast<std::uint32_t>(places_.size()));
  }
}

Matrix::Matrix(const Matrix& source, const std::vector<std::uint32_t>& row_order, const double* row_scale,
               const std::vector<std::uint32_t>& column_order, const double* column_scale)
    : rows_(source.rows_), columns_(source.columns_), sparse_(source.sparse_) {
  std::vector<std::uint32_t> place(columns_);  // where a column of the source goes
  for (std::uint32_t c = 0; c < columns_; ++c) place[column_order[c]] = c;
  if (!sparse_) packs_.resize(rows_ * packed(columns_), 0.0);
  if (sparse_) starts_.push_back(0);
  std::vector<std::pair<std::uint32_t, double>> row;
  for (std::size_t r = 0; r < rows_; ++r) {
    row.clear();
    source.for_row(row_order[r], [&](std::size_t c, double value) {
      row.emplace_back(place[c], row_scale[r] * value * column_scale[place[c]]);
    });
    if (!sparse_) {
      for (const auto& [column, value] : row) packs_[r * packed(columns_) + column] = value;
      continue;
    }
    std::sort(row.begin(), row.end());
    for (const auto& [column, value] : row) {
      places_.push_back(column);
      entries_.push_back(value);
    }
    starts_.push_back(static_cast<std::uint32_t>(places_.size()));
  }
}

void Matrix::times(const double* x, double* out) const {
  if (!sparse_) return dots(packs_.data(), rows_, packed(columns_), packed(columns_), x, out);
  for (std::size_t r = 0; r < rows_; ++r) out[r] = row_dot(r, x);
}

void Matrix::transposed_times(const double* y, double* out) const {
  if (!sparse_) {
    return combine(y, packs_.data(), rows_, packed(columns_), packed(columns_), nullptr, 1.0, out);
  }
  std::fill_n(out, packed(columns_), 0.0);
  for (std::size_t r = 0; r < rows_; ++r) add_row(r, y[r], out);
}

void Matrix::fill_upper(double* K) const {
  const std::size_t stride = packed(columns_);
  if (!sparse_) {
    std::copy(packs_.begin(), packs_.end(), K);
    return;
  }
  std::fill_n(K, rows_ * stride, 0.0);
  for (std::size_t r = 0; r < rows_; ++r) {
    for_row(r, [&](std::size_t c, double value) {
      if (c >= r) K[r * stride + c] = value;
    });
  }
}

void Matrix::add_gram(const double* weights, double* K) const {
  const std::size_t stride = packed(columns_);
  if (!sparse_) return sage::add_gram(weights, packs_.data(), rows_, stride, columns_, K);
  for (std::size_t r = 0; r < rows_; ++r) {
    for (std::uint32_t i = starts_[r]; i < starts_[r + 1]; ++i) {
      const double scaled = weights[r] * entries_[i];
      double* row = K + places_[i] * stride;
      for (std::uint32_t j = i; j < starts_[r + 1]; ++j) row[places_[j]] += scaled * entries_[j];
    }
  }
}

double Matrix::row_dot(std::size_t row, const double* x) const {
  if (!sparse_) return dot(packs_.data() + row * packed(columns_), x, columns_);
  double sum = 0.0;
  for (std::uint32_t k = starts_[row]; k < starts_[row + 1]; ++k) sum += entries_[k] * x[places_[k]];
  return sum;
}

void Matrix::add_row(std::size_t row, double scale, double* out) const {
  if (scale == 0.0) return;
  for_row(row, [&](std::size_t column, double value) { out[column] += scale * value; });
}

bool QpResiduals::within(double eps, double eps_rel) const {
  return primal <= eps + eps_rel * primal_scale && dual <= eps + eps_rel * dual_scale &&
         gap <= eps + eps_rel * gap_scale;
}

QpMatrices::QpMatrices(const double* P, const double* A, std::size_t n, std::size_t m)
    : P_(P, n, n, sparse_below(n, n)), A_(A, m, n, sparse_below(m, n)) {}

QpMatrices::QpMatrices(Matrix P, Matrix A) : P_(std::move(P)), A_(std::move(A)) {}

void QpMatrices::all_rows(const double* x, double* out) const {
  A_.times(x, out);
  std::memcpy(out + m(), x, n() * sizeof(double));
}

double QpMatrices::row_dot(std::size_t limit, const double* x) const {
  return limit < m() ? A_.row_dot(limit, x) : x[limit - m()];
}

void QpMatrices::add_row(std::size_t limit, double scale, double* out) const {
  if (limit < m()) {
    A_.add_row(limit, scale, out);
  } else {
    out[limit - m()] += scale;
  }
}

QpResiduals QpMatrices::residuals(const QpVectors& vectors, const double* x, const double* rows,
                                  const double* y, double* work) const {
  double* Px = work;
  double* Aty = Px + packed(n());
  double* sum = Aty + packed(n());
  const std::size_t used = vectors.used;
  std::fill_n(Aty, packed(n()), 0.0);
  P_.times(x, Px);

  QpResiduals found;
  found.primal = max_violation(rows, vectors.lower.data(), vectors.upper.data(), used);
  double support = 0.0;  // max over the limits of y'z
  for (std::size_t i = 0; i < used; ++i) {
    if (y[i] == 0.0) continue;
    add_row(i, y[i], Aty);
    support += y[i] * (y[i] > 0.0 ? vectors.upper[i] : vectors.lower[i]);
  }
  double xPx = 0.0;
  double qx = 0.0;
  for (std::size_t i = 0; i < n(); ++i) {
    sum[i] = Px[i] + vectors.q[i] + Aty[i];
    xPx += x[i] * Px[i];
    qx += vectors.q[i] * x[i];
  }
  found.dual = max_abs(sum, n());
  found.gap = std::fabs(xPx + qx + support);
  found.objective = 0.5 * xPx + qx;
  found.primal_scale = max_abs(rows, limits());
  found.dual_scale = std::max({max_abs(Px, n()), max_abs(vectors.q.data(), n()), max_abs(Aty, n())});
  found.gap_scale = std::max({std::fabs(xPx), std::fabs(qx), std::fabs(support)});
  return found;
}

bool clip(const QpMatrices& matrices, const QpVectors& vectors, double* x) {
  bool moved = false;
  for (std::size_t i = 0; i < matrices.n(); ++i) {
    const double inside = std::clamp(x[i], vectors.lower[matrices.m() + i], vectors.upper[matrices.m() + i]);
    moved |= inside != x[i];
    x[i] = inside;
  }
  return moved;
}

}  // namespace sage
