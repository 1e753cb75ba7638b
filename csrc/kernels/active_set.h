#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/qp_problem.h"

namespace sage {

enum class ActiveSetOutcome { kOptimal, kInfeasible, kGaveUp };

/// A dual active-set method (Goldfarb and Idnani, 1983) for strictly convex QPs: limits that are violated
/// enter one by one, and leave when their multiplier falls to zero. Exact, and a handful of steps when few
/// limits are active.
///
/// Owns:    its work space. What it learns of a limit, P^-1 a, it keeps for the next solve: memory is
/// allocated when
///          a limit enters for the first time, and the bits of a result do not depend on it. Borrows the
///          matrices and the factor of P.
/// Threads: one at a time.
class ActiveSet {
 public:
  ActiveSet(const QpMatrices& matrices, const Cholesky& P_factor);

  /// Solves from the limits whose entry in `guess` [limits] (null: none) is not zero.
  ///
  /// kOptimal: x [packed(n)] and y [limits] solve the QP, with no limit violated by more than rounding.
  /// kInfeasible: A'y = 0 and the support of y is negative: a certificate (x: the last point), which was
  /// checked. kGaveUp: after `max_changes` of the set.
  ActiveSetOutcome solve(const QpVectors& vectors, const double* guess, std::size_t max_changes, double* x,
                         double* y);

  /// (A x, x) of the last solve.
  const double* rows() const { return rows_.data(); }

  /// Times that a limit entered or left during the last solve.
  std::size_t changes() const { return changes_; }

 private:
  struct Active {
    std::size_t limit;
    double side;        // +1 at its upper limit, -1 at its lower one
    bool equality;      // never leaves
    double multiplier;  // >= 0, except for an equality
  };

  struct Candidate {
    std::size_t limit;
    double side;
    double violation;
  };

  void start(const QpVectors& vectors, const double* guess);
  void presume(const Active& active);
  void find_multipliers(const QpVectors& vectors);
  Candidate worst(const QpVectors& vectors, const double* x) const;
  double rounding(const QpVectors& vectors, std::size_t limit, double bound, const double* x) const;
  bool proves(const QpVectors& vectors, const double* x, const double* y);
  ActiveSetOutcome enter(Candidate candidate, std::size_t max_changes, double* y);
  void know(std::size_t limit);
  double* direction(std::size_t limit) { return directions_.data() + (place_[limit] - 1) * width_; }
  const double* direction(std::size_t limit) const {
    return directions_.data() + (place_[limit] - 1) * width_;
  }
  double project(std::size_t limit, double side);
  void append(const Active& active, double remainder);
  void drop(std::size_t index);
  void solve_lower(double* b) const;
  void solve_upper(double* b) const;
  void move_to_multipliers(double* x) const;
  void write_multipliers(double* y) const;

  double* factor_row(std::size_t index) { return factor_.data() + index * stride_; }
  const double* factor_row(std::size_t index) const { return factor_.data() + index * stride_; }

  const QpMatrices& matrices_;
  const Cholesky& P_factor_;
  std::size_t width_;                 // packed(n)
  std::size_t stride_;                // of the factor, packed(n + 1)
  Packs directions_;                  // [known, width]: P^-1 a, in the order in which they were needed
  std::vector<std::uint32_t> place_;  // of a limit's direction, from 1; 0: not known yet
  std::vector<std::uint8_t> inside_;
  std::vector<Active> active_;
  // L L' = N P^-1 N', N the signed rows of the active limits; on its diagonal, one over the entries.
  Packs factor_;
  Packs entry_;   // L^-1 N P^-1 a of the entering limit
  Packs change_;  // what its multiplier takes from those of the others
  Packs free_x_;  // minimum without limits
  Packs move_;    // work space of `proves`
  Packs rows_;
  std::size_t changes_ = 0;
};

}  // namespace sage
