#include "kernels/proximal.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace sage {

namespace {

constexpr double kStrictlyConvex = 1e-10;  // a pivot of P over its diagonal entry
constexpr double kShift = 1e-6;
constexpr std::size_t kRounds = 100;
constexpr double kSettled = 1e-11;  // what the distance may add to the gradient, over its terms
constexpr double kEndless = 1e-9;   // error of a direction of descent whose largest entry is 1
constexpr double kAlike = 0.99;     // cosine of two moves that go the same way
constexpr double kFurther = 4.0;
constexpr std::size_t kChanges = 50;  // of the active set, plus three for each variable

Matrix copy_of(const Matrix& source) {
  std::vector<std::uint32_t> rows(source.rows()), columns(source.columns());
  std::iota(rows.begin(), rows.end(), 0U);
  std::iota(columns.begin(), columns.end(), 0U);
  const std::vector<double> ones(std::max(source.rows(), source.columns()), 1.0);
  return Matrix(source, rows, ones.data(), columns, ones.data());
}

}  // namespace

ProximalActiveSet::ProximalActiveSet(const AdmmProblem& problem)
    : problem_(problem),
      matrices_(copy_of(problem.P()), copy_of(problem.A())),
      factor_(problem.n()),
      vectors_(problem.n(), problem.limits()),
      x_(packed(problem.n()), 0.0),
      y_(packed(problem.limits()), 0.0),
      centre_(packed(problem.n()), 0.0),
      move_(packed(problem.n()), 0.0),
      last_move_(packed(problem.n()), 0.0),
      image_(packed(problem.n()), 0.0),
      rows_(packed(problem.limits()), 0.0) {
  matrices_.P().fill_upper(factor_.matrix());
  if (!factor_.factor(kStrictlyConvex)) {
    shift_ = kShift;
    matrices_.P().fill_upper(factor_.matrix());
    for (std::size_t i = 0; i < problem.n(); ++i) factor_.matrix()[i * factor_.stride() + i] += shift_;
    if (!factor_.factor(0.0)) return;  // nothing is exact here
  }
  active_set_ = std::make_unique<ActiveSet>(matrices_, factor_);
}

QpStatus ProximalActiveSet::finish(AdmmState& state, double* x, double* y) {
  if (!active_set_) return QpStatus::kRunning;
  const std::size_t n = problem_.n();
  const std::size_t limits = problem_.limits();
  state.scaled_vectors(vectors_);
  const Packs q = vectors_.q;
  std::copy_n(state.scaled_x(), n, centre_.data());
  std::copy_n(state.scaled_y(), limits, y_.data());
  double further = 0.0;
  std::size_t changes = kChanges + 3 * n;
  for (std::size_t round = 0; round < kRounds; ++round) {
    for (std::size_t i = 0; i < n; ++i) vectors_.q[i] = q[i] - shift_ * centre_[i];
    const Packs guess = y_;
    const ActiveSetOutcome outcome =
        active_set_->solve(vectors_, guess.data(), changes, x_.data(), y_.data());
    if (outcome == ActiveSetOutcome::kInfeasible) {
      problem_.unscale_y(y_.data(), state.cost_scale(), y);
      const double size = max_abs(y, limits);
      for (std::size_t i = 0; i < limits; ++i) y[i] /= size;
      return QpStatus::kPrimalInfeasible;
    }
    if (outcome == ActiveSetOutcome::kGaveUp) break;
    changes -= std::min(changes, active_set_->changes());
    for (std::size_t i = 0; i < n; ++i) move_[i] = x_[i] - centre_[i];
    matrices_.P().times(x_.data(), image_.data());
    const double terms = std::max(max_abs(q.data(), n), max_abs(image_.data(), n));
    if (shift_ * max_abs(move_.data(), n) <= kSettled * terms) {
      // The shift costs digits, which polishing without it brings back.
      if (state.take(x_.data(), y_.data()) && shift_ > 0.0) state.polish();
      return QpStatus::kSolved;
    }
    // The same way again: the next point is taken further along it.
    double along = 0.0, now = 0.0, before = 0.0;
    for (std::size_t i = 0; i < n; ++i) {
      along += move_[i] * last_move_[i];
      now += move_[i] * move_[i];
      before += last_move_[i] * last_move_[i];
    }
    further = round > 0 && along > kAlike * std::sqrt(now * before) ? kFurther * std::max(further, 1.0) : 0.0;
    for (std::size_t i = 0; i < n; ++i) centre_[i] = x_[i] + further * move_[i];
    last_move_ = move_;
    vectors_.q = q;
    if (round > 0 && is_descent(vectors_)) {
      problem_.unscale_x(move_.data(), x);
      const double size = max_abs(x, n);
      for (std::size_t i = 0; i < n; ++i) x[i] /= size;
      return QpStatus::kDualInfeasible;
    }
  }
  return state.take(x_.data(), y_.data()) ? QpStatus::kSolved : QpStatus::kRunning;
}

/// Whether the last move is a direction of descent without end.
bool ProximalActiveSet::is_descent(const QpVectors& vectors) {
  const std::size_t n = problem_.n();
  const double size = max_abs(move_.data(), n);
  if (!(size > 0.0)) return false;
  double descent = 0.0;
  for (std::size_t i = 0; i < n; ++i) {
    move_[i] /= size;
    descent += vectors.q[i] * move_[i];
  }
  if (!(descent < -kEndless * max_abs(vectors.q.data(), n))) return false;
  matrices_.P().times(move_.data(), image_.data());
  if (max_abs(image_.data(), n) > kEndless) return false;
  matrices_.all_rows(move_.data(), rows_.data());
  for (std::size_t i = 0; i < vectors.used; ++i) {
    if (rows_[i] > kEndless && !std::isinf(vectors.upper[i])) return false;
    if (rows_[i] < -kEndless && !std::isinf(vectors.lower[i])) return false;
  }
  return true;
}

}  // namespace sage
