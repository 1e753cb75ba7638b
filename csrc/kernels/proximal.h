#pragma once

#include <cstddef>
#include <memory>

#include "kernels/active_set.h"
#include "kernels/admm.h"

namespace sage {

/// The exact end of a run: the active-set method on the scaled problem, so that no unit matters. Where P is
/// not strictly convex, on proximal points: each solve adds a small weight on the distance from the last one,
/// and few are needed (Bemporad, 2018).
///
/// Owns:    its matrices, their factor and its work space. Borrows the problem.
/// Threads: one at a time.
class ProximalActiveSet {
 public:
  explicit ProximalActiveSet(const AdmmProblem& problem);

  /// Solves from where a run stands and lets it go on from the solution. x [n] and y [limits] are work space,
  /// and hold the certificate of a problem without a solution, in the caller's units.
  ///
  /// @returns kSolved, kPrimalInfeasible, kDualInfeasible, or kRunning: nothing better was found.
  QpStatus finish(AdmmState& state, double* x, double* y);

 private:
  bool is_descent(const QpVectors& vectors);

  const AdmmProblem& problem_;
  QpMatrices matrices_;
  Cholesky factor_;
  double shift_ = 0.0;  // weight of the distance
  std::unique_ptr<ActiveSet> active_set_;
  QpVectors vectors_;
  Packs x_, y_, centre_, move_, last_move_, image_, rows_;
};

}  // namespace sage
