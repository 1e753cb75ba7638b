#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/active_set.h"
#include "kernels/admm.h"
#include "kernels/proximal.h"

namespace sage {

/// When a solve is done.
struct QpGoal {
  double eps = 1e-3;     ///< bound of the primal, dual and gap residuals, in the caller's units
  double eps_rel = 0.0;  ///< added to it: this times the size of what the residual is a difference of
  std::size_t max_iterations = 4000;
};

/// The vectors of one QP as they come; null: no such limits.
struct QpInput {
  const double* q;             ///< [n]
  const double* l = nullptr;   ///< [m]
  const double* u = nullptr;   ///< [m]
  const double* lb = nullptr;  ///< [n]
  const double* ub = nullptr;  ///< [n]
  const double* x0 = nullptr;  ///< [n], where to begin
  const double* y0 = nullptr;  ///< [m + n], multipliers to begin with
};

/// What a solve found. The memory is the caller's. Of a primal infeasibility y is the certificate (A'y = 0,
/// negative support), of a dual one x is (a direction of descent without end).
struct QpOutput {
  double* x;  ///< [n]
  double* y;  ///< [m + n]
  QpStatus status = QpStatus::kRunning;
  std::size_t iterations = 0;  ///< changes of the active set and ADMM steps
  QpResiduals residuals = {};
};

/// Copies the vectors of a QP. @throws ProblemError for NaN, an infinite q, or a lower limit above its upper
/// one.
void load(const QpMatrices& matrices, const QpInput& input, QpVectors& vectors);

/// Solves QPs with the same P and A: by the dual active-set method while P is strictly convex and few limits
/// are active, by ADMM with polishing and an exact end otherwise.
///
/// Owns:    copies of the matrices, their factors, and work space for each thread.
/// Threads: one at a time, and another in `finish`, which has work space of its own: it takes long, and the
/// next
///          run starts meanwhile. `solve_many` shares its work among those of a pool.
class QpSolver {
 public:
  /// @throws ProblemError when P is not positive semidefinite, with its smallest eigenvalue.
  QpSolver(const double* P, const double* A, std::size_t n, std::size_t m, const AdmmOptions& options);
  QpSolver(const QpSolver&) = delete;
  QpSolver& operator=(const QpSolver&) = delete;
  ~QpSolver();

  const QpMatrices& matrices() const { return matrices_; }
  /// Whether the Cholesky factor of P exists.
  bool strictly_convex() const { return strictly_convex_; }
  /// The scaled problem, made when it is first asked for.
  const AdmmProblem& admm();

  void solve(const QpInput& input, const QpGoal& goal, QpOutput& output);
  /// ADMM on one QP, to be advanced by the caller; it borrows from this solver. `offset` is a constant of the
  /// cost, which the gap is relative to.
  AdmmState start(const QpInput& input, double offset = 0.0);
  /// Looks for the exact solution from where a run of this solver stands; as ProximalActiveSet::finish.
  QpStatus finish(AdmmState& state, double* x, double* y);
  /// Solves `count` of them; the bits of each depend neither on the pool nor on the others.
  void solve_many(const QpInput* inputs, std::size_t count, const QpGoal& goal, ThreadPool* pool,
                  QpOutput* outputs);

 private:
  struct Worker;

  Worker& worker(std::size_t rank);
  void solve_on(Worker& worker, const QpInput& input, const QpGoal& goal, QpOutput& output);
  bool try_active_set(Worker& worker, const QpInput& input, const QpGoal& goal, QpOutput& output);
  void run_admm(Worker& worker, const QpInput& input, const QpGoal& goal, QpOutput& output);

  QpMatrices matrices_;
  AdmmOptions options_;
  Cholesky P_factor_;
  bool strictly_convex_;
  std::once_flag admm_made_;
  std::unique_ptr<AdmmProblem> admm_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::unique_ptr<ProximalActiveSet> finisher_;
};

}  // namespace sage
