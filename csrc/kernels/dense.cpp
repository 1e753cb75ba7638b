#include "kernels/dense.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/clones.h"

namespace sage {

namespace {

// Compilers lower it to what the instruction set has.
typedef double Pack __attribute__((vector_size(64), may_alias));

inline const Pack& at(const double* values) { return *reinterpret_cast<const Pack*>(values); }
inline Pack& at(double* values) { return *reinterpret_cast<Pack*>(values); }

inline double lane_sum(const Pack& p) {
  return ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
}

/// Two packs of columns of `combine`, each in two sums that do not wait for each other.
inline void combine_columns(const double* weights, const double* rows, std::size_t count, std::size_t stride,
                            bool two, Pack& left, Pack& right) {
  const std::size_t next = two ? kPack : 0;
  Pack left_even = {}, left_odd = {}, right_even = {}, right_odd = {};
  std::size_t k = 0;
  for (; k + 2 <= count; k += 2) {
    const double* row = rows + k * stride;
    left_even += weights[k] * at(row);
    right_even += weights[k] * at(row + next);
    left_odd += weights[k + 1] * at(row + stride);
    right_odd += weights[k + 1] * at(row + stride + next);
  }
  if (k < count) {
    left_even += weights[k] * at(rows + k * stride);
    right_even += weights[k] * at(rows + k * stride + next);
  }
  left = left_even + left_odd;
  right = right_even + right_odd;
}

/// tile[r] += sum_k sign * weights[k] * X[k, row + r] * X[k, column ...].
template <bool kWeighted>
inline void add_tile(const double* X, std::size_t stride, std::size_t begin, std::size_t end,
                     const double* weights, std::size_t row, std::size_t column, Pack (&tile)[4]) {
  for (std::size_t k = begin; k < end; ++k) {
    const double* x = X + k * stride;
    const Pack right = kWeighted ? weights[k] * at(x + column) : -at(x + column);
    for (std::size_t r = 0; r < 4; ++r) tile[r] += x[row + r] * right;
  }
}

SAGE_CLONES double dot_clones(const double* a, const double* b, std::size_t count) {
  Pack sum = {};
  for (std::size_t i = 0; i < count; i += kPack) sum += at(a + i) * at(b + i);
  return lane_sum(sum);
}

SAGE_CLONES double max_abs_clones(const double* values, std::size_t count) {
  double largest[kPack] = {};
  std::size_t i = 0;
  for (; i + kPack <= count; i += kPack) {
    for (std::size_t lane = 0; lane < kPack; ++lane) {
      const double size = std::fabs(values[i + lane]);
      largest[lane] = size > largest[lane] ? size : largest[lane];
    }
  }
  for (; i < count; ++i) largest[0] = std::max(largest[0], std::fabs(values[i]));
  return *std::max_element(largest, largest + kPack);
}

SAGE_CLONES bool all_finite_clones(const double* values, std::size_t count) {
  double zeros[kPack] = {};  // NaN once a value is not finite
  std::size_t i = 0;
  for (; i + kPack <= count; i += kPack) {
    for (std::size_t lane = 0; lane < kPack; ++lane) zeros[lane] += values[i + lane] * 0.0;
  }
  for (; i < count; ++i) zeros[0] += values[i] * 0.0;
  return std::all_of(zeros, zeros + kPack, [](double zero) { return zero == 0.0; });
}

SAGE_CLONES double max_violation_clones(const double* values, const double* lower, const double* upper,
                                        std::size_t count) {
  double largest[kPack] = {};
  std::size_t i = 0;
  for (; i + kPack <= count; i += kPack) {
    for (std::size_t lane = 0; lane < kPack; ++lane) {
      const double above = values[i + lane] - upper[i + lane];
      const double below = lower[i + lane] - values[i + lane];
      const double violation = above > below ? above : below;
      largest[lane] = violation > largest[lane] ? violation : largest[lane];
    }
  }
  for (; i < count; ++i) largest[0] = std::max({largest[0], values[i] - upper[i], lower[i] - values[i]});
  return *std::max_element(largest, largest + kPack);
}

SAGE_CLONES bool all_ordered_clones(const double* lower, const double* upper, std::size_t count) {
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  bool ordered = true;
  for (std::size_t i = 0; i < count; ++i) {
    ordered &= (lower[i] <= upper[i]) & (lower[i] < kInfinite) & (upper[i] > -kInfinite);
  }
  return ordered;
}

SAGE_CLONES void combine_clones(const double* weights, const double* rows, std::size_t count,
                                std::size_t stride, std::size_t width, const double* base, double scale,
                                double* out) {
  for (std::size_t c = 0; c < width; c += 2 * kPack) {
    const bool two = c + kPack < width;
    Pack left, right;
    combine_columns(weights, rows + c, count, stride, two, left, right);
    at(out + c) = base == nullptr ? scale * left : at(base + c) + scale * left;
    if (two) at(out + c + kPack) = base == nullptr ? scale * right : at(base + c + kPack) + scale * right;
  }
}

SAGE_CLONES void dots_clones(const double* rows, std::size_t count, std::size_t stride, std::size_t width,
                             const double* x, double* out) {
  std::size_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const double* row = rows + i * stride;
    Pack sum[4] = {};
    for (std::size_t j = 0; j < width; j += kPack) {
      for (std::size_t r = 0; r < 4; ++r) sum[r] += at(row + r * stride + j) * at(x + j);
    }
    for (std::size_t r = 0; r < 4; ++r) out[i + r] = lane_sum(sum[r]);
  }
  for (; i < count; ++i) {
    Pack sum = {};
    for (std::size_t j = 0; j < width; j += kPack) sum += at(rows + i * stride + j) * at(x + j);
    out[i] = lane_sum(sum);
  }
}

SAGE_CLONES void add_gram_clones(const double* weights, const double* rows, std::size_t count,
                                 std::size_t stride, std::size_t size, double* K) {
  const std::size_t width = packed(size);
  for (std::size_t i = 0; i < size; i += 4) {
    for (std::size_t j = i / kPack * kPack; j < width; j += kPack) {
      Pack tile[4];
      for (std::size_t r = 0; r < 4; ++r) tile[r] = at(K + (i + r) * width + j);
      add_tile<true>(rows, stride, 0, count, weights, i, j, tile);
      for (std::size_t r = 0; r < 4; ++r) at(K + (i + r) * width + j) = tile[r];
    }
  }
}

/// Factors the 4 x 4 block on the diagonal at (row, row) of U, zeroes what is left of the diagonal in its
/// pack, and keeps the inverse pivots. @returns false when a pivot is too small.
inline bool factor_corner(double* U, std::size_t stride, std::size_t row, double relative_pivot,
                          const double* diagonal, double* inverse_pivots) {
  for (std::size_t r = row; r < row + 4; ++r) {
    double* u = U + r * stride;
    for (std::size_t k = row; k < r; ++k) {
      const double factor = U[k * stride + r];
      for (std::size_t c = r; c < row + 4; ++c) u[c] -= factor * U[k * stride + c];
    }
    if (!(u[r] > relative_pivot * diagonal[r - row])) return false;
    const double pivot = std::sqrt(u[r]);
    inverse_pivots[r] = 1.0 / pivot;
    for (std::size_t c = row / kPack * kPack; c < r; ++c) u[c] = 0.0;
    u[r] = pivot;
    for (std::size_t c = r + 1; c < row + 4; ++c) u[c] *= inverse_pivots[r];
  }
  return true;
}

SAGE_CLONES bool factor_clones(double* U, std::size_t stride, const std::uint32_t* first,
                               const std::uint32_t* end, double relative_pivot, double* inverse_pivots) {
  for (std::size_t row = 0; row < stride; row += 4) {
    const std::size_t corner = row / kPack * kPack;
    double diagonal[4];
    for (std::size_t r = 0; r < 4; ++r) diagonal[r] = U[(row + r) * stride + row + r];
    for (std::size_t column = corner; column < end[row / kPack] * kPack; column += kPack) {
      const std::size_t begin = std::max(first[row / kPack], first[column / kPack]);
      if (begin >= row + 4) continue;
      Pack tile[4];
      for (std::size_t r = 0; r < 4; ++r) tile[r] = at(U + (row + r) * stride + column);
      add_tile<false>(U, stride, begin, row, nullptr, row, column, tile);
      if (column == corner) {
        for (std::size_t r = 0; r < 4; ++r) at(U + (row + r) * stride + column) = tile[r];
        if (!factor_corner(U, stride, row, relative_pivot, diagonal, inverse_pivots)) return false;
        if (row != corner) continue;
        // Columns row + 4 .. row + 7 of the same pack still wait for the corner's factor.
        for (std::size_t r = 0; r < 4; ++r) {
          double* u = U + (row + r) * stride;
          for (std::size_t c = row + 4; c < row + kPack; ++c) {
            for (std::size_t k = 0; k < r; ++k)
              u[c] -= U[(row + k) * stride + row + r] * U[(row + k) * stride + c];
            u[c] *= inverse_pivots[row + r];
          }
        }
        continue;
      }
      for (std::size_t r = 0; r < 4; ++r) {
        for (std::size_t k = 0; k < r; ++k) tile[r] -= U[(row + k) * stride + row + r] * tile[k];
        tile[r] *= inverse_pivots[row + r];
        at(U + (row + r) * stride + column) = tile[r];
      }
    }
  }
  return true;
}

/// Inverts the blocks on the diagonal of U, each kPack wide: `inverses` holds every block's inverse and its
/// transpose.
SAGE_CLONES void invert_blocks_clones(const double* U, std::size_t stride, const double* inverse_pivots,
                                      double* inverses) {
  for (std::size_t row = 0; row < stride; row += kPack) {
    const double* block = U + row * stride + row;
    double* inverse = inverses + 2 * kPack * row;
    double* transposed = inverse + kPack * kPack;
    for (std::size_t r = kPack; r-- > 0;) {
      Pack sum = {};
      sum[r] = 1.0;
      for (std::size_t k = r + 1; k < kPack; ++k) sum -= block[r * stride + k] * at(inverse + k * kPack);
      at(inverse + r * kPack) = inverse_pivots[row + r] * sum;
    }
    for (std::size_t r = 0; r < kPack; ++r) {
      for (std::size_t k = 0; k < kPack; ++k) transposed[k * kPack + r] = inverse[r * kPack + k];
    }
  }
}

/// b = sum_r b[r] * block[r, :], a product with a block on the diagonal.
inline void multiply_block(const double* block, double* b) {
  Pack even = {}, odd = {};
  for (std::size_t r = 0; r < kPack; r += 2) {
    even += b[r] * at(block + r * kPack);
    odd += b[r + 1] * at(block + (r + 1) * kPack);
  }
  at(b) = even + odd;
}

SAGE_CLONES void solve_clones(const double* U, std::size_t stride, const std::uint32_t* end,
                              const double* inverses, double* b) {
  for (std::size_t row = 0; row < stride; row += kPack) {
    multiply_block(inverses + 2 * kPack * row, b + row);
    for (std::size_t column = row + kPack; column < end[row / kPack] * kPack; column += kPack) {
      Pack even = {}, odd = {};
      for (std::size_t r = row; r < row + kPack; r += 2) {
        even += b[r] * at(U + r * stride + column);
        odd += b[r + 1] * at(U + (r + 1) * stride + column);
      }
      at(b + column) -= even + odd;
    }
  }
  for (std::size_t row = stride; row > 0;) {
    row -= kPack;
    for (std::size_t r = row; r < row + kPack; ++r) {
      Pack sum = {};
      for (std::size_t column = row + kPack; column < end[row / kPack] * kPack; column += kPack) {
        sum += at(U + r * stride + column) * at(b + column);
      }
      b[r] -= lane_sum(sum);
    }
    multiply_block(inverses + 2 * kPack * row + kPack * kPack, b + row);
  }
}

}  // namespace

double dot(const double* a, const double* b, std::size_t count) { return dot_clones(a, b, packed(count)); }

double max_abs(const double* values, std::size_t count) { return max_abs_clones(values, count); }

bool all_finite(const double* values, std::size_t count) { return all_finite_clones(values, count); }

double max_violation(const double* values, const double* lower, const double* upper, std::size_t count) {
  return max_violation_clones(values, lower, upper, count);
}

bool all_ordered(const double* lower, const double* upper, std::size_t count) {
  return all_ordered_clones(lower, upper, count);
}

void combine(const double* weights, const double* rows, std::size_t count, std::size_t stride,
             std::size_t width, const double* base, double scale, double* out) {
  combine_clones(weights, rows, count, stride, width, base, scale, out);
}

void dots(const double* rows, std::size_t count, std::size_t stride, std::size_t width, const double* x,
          double* out) {
  dots_clones(rows, count, stride, width, x, out);
}

void add_gram(const double* weights, const double* rows, std::size_t count, std::size_t stride,
              std::size_t size, double* K) {
  add_gram_clones(weights, rows, count, stride, packed(size), K);
}

Cholesky::Cholesky(std::size_t size)
    : size_(size),
      stride_(packed(size)),
      u_(stride_ * stride_),
      inverse_pivots_(stride_),
      inverses_(2 * kPack * stride_),
      first_(stride_ / kPack),
      end_(stride_ / kPack) {}

void Cholesky::find_envelope() {
  const std::size_t blocks = stride_ / kPack;
  for (std::size_t block = 0; block < blocks; ++block) {
    std::size_t row = 0;
    const auto empty = [&] {
      const double* pack = u_.data() + row * stride_ + block * kPack;
      return std::all_of(pack, pack + kPack, [](double value) { return value == 0.0; });
    };
    while (row < block * kPack && empty()) ++row;
    first_[block] = static_cast<std::uint32_t>(row);
  }
  for (std::size_t block = 0; block < blocks; ++block) {
    std::size_t end = blocks;
    while (first_[end - 1] >= (block + 1) * kPack) --end;
    end_[block] = static_cast<std::uint32_t>(end);
  }
}

bool Cholesky::factor(double relative_pivot) {
  for (std::size_t i = size_; i < stride_; ++i) {
    std::fill_n(u_.data() + i * stride_, stride_, 0.0);
    u_[i * stride_ + i] = 1.0;
  }
  find_envelope();
  if (!factor_clones(u_.data(), stride_, first_.data(), end_.data(), relative_pivot,
                     inverse_pivots_.data())) {
    return false;
  }
  invert_blocks_clones(u_.data(), stride_, inverse_pivots_.data(), inverses_.data());
  return true;
}

void Cholesky::solve(double* b) const { solve_clones(u_.data(), stride_, end_.data(), inverses_.data(), b); }

}  // namespace sage
