#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

// Small dense linear algebra in double. Every sum has one order, whatever the instruction set.
namespace sage {

inline constexpr std::size_t kPack = 8;  ///< doubles that move together: 64 bytes

constexpr std::size_t packed(std::size_t count) { return (count + kPack - 1) / kPack * kPack; }

/// Memory on a 64-byte boundary, left as it is unless a value is given: large work space that is never
/// touched costs nothing.
template <class T>
struct PackAllocator {
  using value_type = T;
  PackAllocator() = default;
  template <class U>
  PackAllocator(const PackAllocator<U>&) {}
  T* allocate(std::size_t count) {
    return static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t{64}));
  }
  void construct(T* place) { ::new (static_cast<void*>(place)) T; }
  void construct(T* place, const T& value) { ::new (static_cast<void*>(place)) T(value); }
  void deallocate(T* memory, std::size_t) { ::operator delete(memory, std::align_val_t{64}); }
  bool operator==(const PackAllocator&) const { return true; }
  bool operator!=(const PackAllocator&) const { return false; }
};

/// Doubles that start on a pack. Vectors given to the functions below have `packed(n)` of them, zeros at the
/// end.
using Packs = std::vector<double, PackAllocator<double>>;

double dot(const double* a, const double* b, std::size_t count);
double max_abs(const double* values, std::size_t count);
/// Whether no value is NaN or infinite.
bool all_finite(const double* values, std::size_t count);

/// Largest violation max(value - upper, lower - value, 0) of `count` limits.
double max_violation(const double* values, const double* lower, const double* upper, std::size_t count);
/// Whether every lower <= upper, with neither NaN, +inf below nor -inf above.
bool all_ordered(const double* lower, const double* upper, std::size_t count);

/// out = base + scale * sum_k weights[k] * rows[k, :], or without base where it is null. Row k starts at
/// `rows + k * stride`; `width` is a whole number of packs. `out` may be `base`.
void combine(const double* weights, const double* rows, std::size_t count, std::size_t stride,
             std::size_t width, const double* base, double scale, double* out);

/// out[i] = dot(rows[i, :], x) over `width`, a whole number of packs.
void dots(const double* rows, std::size_t count, std::size_t stride, std::size_t width, const double* x,
          double* out);

/// K[i, j] += sum_k weights[k] * rows[k, i] * rows[k, j] in the packs on and right of the diagonal.
void add_gram(const double* weights, const double* rows, std::size_t count, std::size_t stride,
              std::size_t size, double* K);

/// U'U = K of a symmetric positive definite K, within K's envelope: what lies above the first entry of a
/// column stays zero and is skipped.
class Cholesky {
 public:
  /// Room for K [size, size].
  explicit Cholesky(std::size_t size);

  std::size_t size() const { return size_; }
  std::size_t stride() const { return stride_; }
  /// K [stride, stride] row-major, of which the upper triangle counts, to be filled before `factor`; U after
  /// it.
  double* matrix() { return u_.data(); }

  /// @returns false when a pivot is not above `relative_pivot` times its diagonal entry.
  bool factor(double relative_pivot);

  /// Solves K x = b in place; b has `stride()` elements.
  void solve(double* b) const;

 private:
  void find_envelope();

  std::size_t size_;
  std::size_t stride_;
  Packs u_;
  Packs inverse_pivots_;
  Packs inverses_;                    // of the blocks on the diagonal, each followed by its transpose
  std::vector<std::uint32_t> first_;  // by pack of columns: its first row that is not zero
  std::vector<std::uint32_t> end_;    // by pack of rows: past its last pack of columns that is not zero
};

}  // namespace sage
