#include "kernels/qp_solver.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <string>

#include "core/errors.h"

namespace sage {

namespace {

constexpr double kSymmetric = 1e-8;        // difference of two mirrored entries over their sizes
constexpr double kStrictlyConvex = 1e-10;  // a pivot of P over its diagonal entry
constexpr double kAlmostConvex = 1e-9;     // times the largest diagonal entry: what rounding may take from P
constexpr std::size_t kMostChanges = 50;   // of the active set, plus two for each variable
constexpr std::size_t kFirstPolish = 25;   // ADMM steps; again at 50, 100, ...
constexpr std::size_t kFinish = 100;       // ADMM steps after which polishing gives way to an exact end
constexpr std::size_t kCheckEvery = 5;     // ADMM steps
constexpr double kCertificate = 1e-6;      // error of a certificate whose largest entry is 1

void fill_shifted(const Matrix& P, double shift, Cholesky& factor) {
  double* K = factor.matrix();
  P.fill_upper(K);
  for (std::size_t r = 0; r < P.rows(); ++r) K[r * factor.stride() + r] += shift;
}

double largest_entry(const Matrix& P) {
  double largest = 0.0;
  for (std::size_t r = 0; r < P.rows(); ++r) {
    P.for_row(r, [&](std::size_t, double value) { largest = std::max(largest, std::fabs(value)); });
  }
  return largest;
}

/// By bisection: P + shift I has a Cholesky factor for every shift above minus the eigenvalue.
double smallest_eigenvalue(const Matrix& P, Cholesky& factor) {
  double high = largest_entry(P) * static_cast<double>(P.rows());
  double low = 0.0;
  for (int round = 0; round < 40; ++round) {
    const double middle = 0.5 * (low + high);
    fill_shifted(P, middle, factor);
    (factor.factor(0.0) ? high : low) = middle;
  }
  return -high;
}

/// Leaves the factor of P in `factor` if there is one. @returns whether there is.
bool factor_convex(const Matrix& P, Cholesky& factor) {
  fill_shifted(P, 0.0, factor);
  if (factor.factor(kStrictlyConvex)) return true;
  const double slack = kAlmostConvex * largest_entry(P);
  if (slack == 0.0) return false;
  fill_shifted(P, slack, factor);
  if (factor.factor(0.0)) return false;
  std::ostringstream message;
  message << "P: expected a positive semidefinite matrix, got smallest eigenvalue "
          << smallest_eigenvalue(P, factor);
  throw ProblemError(message.str());
}

/// @throws ProblemError naming the first pair of mirrored entries that differ.
void require_symmetric(const double* P, std::size_t n) {
  for (std::size_t r = 0; r < n; ++r) {
    for (std::size_t c = 0; c < r; ++c) {
      const double above = P[c * n + r];
      const double below = P[r * n + c];
      if (std::fabs(above - below) <= kSymmetric * (std::fabs(above) + std::fabs(below))) continue;
      std::ostringstream message;
      message << "P: expected a symmetric matrix, got " << above << " at [" << c << ", " << r << "] and "
              << below << " below the diagonal; use (P + P') / 2";
      throw ProblemError(message.str());
    }
  }
}

/// Whether P x = P'x for an x without pattern: much faster than looking at every pair.
bool looks_symmetric(const Matrix& P) {
  const std::size_t n = P.rows();
  Packs x(packed(n), 0.0), straight(packed(n)), across(packed(n));
  for (std::size_t i = 0; i < n; ++i) {
    const double turn = 0.6180339887498949 * static_cast<double>(i + 1);
    x[i] = 1.0 + turn - std::floor(turn);
  }
  P.times(x.data(), straight.data());
  P.transposed_times(x.data(), across.data());
  double apart = 0.0;
  for (std::size_t i = 0; i < n; ++i) apart = std::max(apart, std::fabs(straight[i] - across[i]));
  return apart <= kSymmetric * max_abs(straight.data(), n);
}

/// Copies of matrices that are finite, P symmetric to rounding.
QpMatrices checked(const double* P, const double* A, std::size_t n, std::size_t m) {
  if (!all_finite(P, n * n)) throw ProblemError("P: expected finite numbers, got NaN or infinity");
  if (!all_finite(A, m * n)) throw ProblemError("A: expected finite numbers, got NaN or infinity");
  QpMatrices matrices(P, A, n, m);
  if (!looks_symmetric(matrices.P())) require_symmetric(P, n);
  return matrices;
}

[[noreturn]] void refuse_limits(const QpVectors& vectors, std::size_t m) {
  std::size_t limit = 0;
  while (all_ordered(&vectors.lower[limit], &vectors.upper[limit], 1)) ++limit;
  std::ostringstream message;
  message.precision(std::numeric_limits<double>::max_digits10);
  const bool row = limit < m;
  message << (row ? "l, u" : "lb, ub") << ": expected lower <= upper, with neither NaN, got ["
          << vectors.lower[limit] << ", " << vectors.upper[limit] << "] at " << (row ? limit : limit - m);
  throw ProblemError(message.str());
}

QpStatus end_exactly(std::unique_ptr<ProximalActiveSet>& exact, const AdmmProblem& problem, AdmmState& state,
                     double* x, double* y) {
  if (!exact) exact = std::make_unique<ProximalActiveSet>(problem);
  return exact->finish(state, x, y);
}

}  // namespace

void load(const QpMatrices& matrices, const QpInput& input, QpVectors& vectors) {
  const std::size_t n = matrices.n();
  const std::size_t m = matrices.m();
  if (!all_finite(input.q, n)) throw ProblemError("q: expected finite numbers, got NaN or infinity");
  std::copy_n(input.q, n, vectors.q.data());
  const auto fill = [](const double* values, std::size_t count, double absent, double* out) {
    if (values == nullptr) {
      std::fill_n(out, count, absent);
    } else {
      std::copy_n(values, count, out);
    }
  };
  fill(input.l, m, -kInfinity, vectors.lower.data());
  fill(input.u, m, kInfinity, vectors.upper.data());
  fill(input.lb, n, -kInfinity, vectors.lower.data() + m);
  fill(input.ub, n, kInfinity, vectors.upper.data() + m);
  vectors.used = input.lb == nullptr && input.ub == nullptr ? m : m + n;
  if (!all_ordered(vectors.lower.data(), vectors.upper.data(), vectors.used)) refuse_limits(vectors, m);
}

/// What one thread needs to solve one QP.
struct QpSolver::Worker {
  Worker(const QpMatrices& matrices, const Cholesky& P_factor, bool strictly_convex)
      : vectors(matrices.n(), matrices.limits()),
        x(packed(matrices.n())),
        rows(packed(matrices.limits())),
        work(3 * packed(matrices.n())) {
    if (strictly_convex) active_set = std::make_unique<ActiveSet>(matrices, P_factor);
  }

  QpVectors vectors;
  Packs x;
  Packs rows;
  Packs work;
  std::unique_ptr<ActiveSet> active_set;
  std::unique_ptr<AdmmState> admm;
  std::unique_ptr<ProximalActiveSet> exact;
};

QpSolver::QpSolver(const double* P, const double* A, std::size_t n, std::size_t m, const AdmmOptions& options)
    : matrices_(checked(P, A, n, m)), options_(options), P_factor_(n) {
  validate(options);
  strictly_convex_ = factor_convex(matrices_.P(), P_factor_);
}

QpSolver::~QpSolver() = default;

const AdmmProblem& QpSolver::admm() {
  std::call_once(admm_made_, [this] {
    admm_ = std::make_unique<AdmmProblem>(matrices_, strictly_convex_ ? &P_factor_ : nullptr, options_);
  });
  return *admm_;
}

QpSolver::Worker& QpSolver::worker(std::size_t rank) {
  while (workers_.size() <= rank) {
    workers_.push_back(std::make_unique<Worker>(matrices_, P_factor_, strictly_convex_));
  }
  return *workers_[rank];
}

void QpSolver::solve(const QpInput& input, const QpGoal& goal, QpOutput& output) {
  solve_on(worker(0), input, goal, output);
}

AdmmState QpSolver::start(const QpInput& input, double offset) {
  Worker& first = worker(0);
  load(matrices_, input, first.vectors);
  if (!first.admm) first.admm = std::make_unique<AdmmState>(admm());
  first.admm->start(first.vectors, input.x0, input.y0, offset);
  first.admm->prepare();
  return first.admm->fork();
}

QpStatus QpSolver::finish(AdmmState& state, double* x, double* y) {
  return end_exactly(finisher_, admm(), state, x, y);
}

void QpSolver::solve_many(const QpInput* inputs, std::size_t count, const QpGoal& goal, ThreadPool* pool,
                          QpOutput* outputs) {
  const std::size_t parts = pool == nullptr ? 1 : pool->threads();
  worker(parts - 1);
  for_ranges(pool, parts, [&](std::size_t first, std::size_t last) {
    for (std::size_t part = first; part < last; ++part) {
      for (std::size_t i = count * part / parts; i < count * (part + 1) / parts; ++i) {
        solve_on(*workers_[part], inputs[i], goal, outputs[i]);
      }
    }
  });
}

void QpSolver::solve_on(Worker& worker, const QpInput& input, const QpGoal& goal, QpOutput& output) {
  load(matrices_, input, worker.vectors);
  if (strictly_convex_ && try_active_set(worker, input, goal, output)) return;
  run_admm(worker, input, goal, output);
}

/// @returns whether that was the end of it.
bool QpSolver::try_active_set(Worker& worker, const QpInput& input, const QpGoal& goal, QpOutput& output) {
  const std::size_t most_changes = std::min(goal.max_iterations, kMostChanges + 2 * matrices_.n());
  const ActiveSetOutcome outcome =
      worker.active_set->solve(worker.vectors, input.y0, most_changes, worker.x.data(), output.y);
  output.iterations = worker.active_set->changes();
  if (outcome == ActiveSetOutcome::kGaveUp) return false;
  const double* rows = worker.active_set->rows();
  if (clip(matrices_, worker.vectors, worker.x.data())) {
    matrices_.all_rows(worker.x.data(), worker.rows.data());
    rows = worker.rows.data();
  }
  std::copy_n(worker.x.data(), matrices_.n(), output.x);
  output.residuals = matrices_.residuals(worker.vectors, worker.x.data(), rows, output.y, worker.work.data());
  const bool infeasible = outcome == ActiveSetOutcome::kInfeasible;
  output.status = infeasible ? QpStatus::kPrimalInfeasible : QpStatus::kSolved;
  return infeasible || output.residuals.within(goal.eps, goal.eps_rel);
}

void QpSolver::run_admm(Worker& worker, const QpInput& input, const QpGoal& goal, QpOutput& output) {
  if (!worker.admm) worker.admm = std::make_unique<AdmmState>(admm());
  AdmmState& state = *worker.admm;
  state.start(worker.vectors, input.x0, input.y0);
  const auto solved = [&] { return state.residuals().within(goal.eps, goal.eps_rel); };
  output.status = solved() ? QpStatus::kSolved : QpStatus::kRunning;
  const auto end = [&] {
    const QpStatus found = end_exactly(worker.exact, admm(), state, output.x, output.y);
    if (found == QpStatus::kSolved ? solved() : found != QpStatus::kRunning) output.status = found;
  };
  std::size_t next_polish = kFirstPolish;
  while (output.status == QpStatus::kRunning) {
    if (state.iterations() >= goal.max_iterations) {
      output.status = state.polish() && solved() ? QpStatus::kSolved : QpStatus::kMaxIterations;
      if (output.status != QpStatus::kSolved && state.iterations() >= kFinish) end();
      break;
    }
    state.advance(std::min(kCheckEvery, goal.max_iterations - state.iterations()));
    output.status = solved() ? QpStatus::kSolved : state.infeasibility(kCertificate, output.x, output.y);
    if (output.status == QpStatus::kRunning && state.iterations() >= next_polish) {
      next_polish *= 2;
      if (state.polish() && solved()) {
        output.status = QpStatus::kSolved;
      } else if (state.iterations() >= kFinish) {
        end();
      }
    }
  }
  output.iterations += state.iterations();
  output.residuals = state.residuals();
  if (output.status != QpStatus::kDualInfeasible) std::copy_n(state.x(), matrices_.n(), output.x);
  if (output.status != QpStatus::kPrimalInfeasible) std::copy_n(state.y(), matrices_.limits(), output.y);
}

}  // namespace sage
