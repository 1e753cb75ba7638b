#include "kernels/admm.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <tuple>

#include "core/errors.h"
#include "kernels/clones.h"
#include "kernels/ordering.h"

namespace sage {

namespace {

constexpr int kRuizRounds = 10;
constexpr double kRuizDone = 0.1;        // the norms are within this of 1
constexpr double kLeastWeight = 1e-6;    // of a limit that is not there
constexpr double kEqualityWeight = 1e3;  // times rho
constexpr double kWorthAdapting = 5.0;   // factor by which rho must change to be worth a new factorisation
constexpr std::size_t kFirstAdaptation = 25;
constexpr std::size_t kInverseUpTo = 64;  // variables up to which an explicit inverse beats two triangles
constexpr double kNoWeight = -1.0;        // of a factor that is not there yet
constexpr double kPolishShift = 1e-6;
constexpr int kPolishRounds = 5;
constexpr double kFar = 1e4;         // sizes of x at which a limit bounds nothing
constexpr double kLeastCost = 1e-9;  // of its terms: a smaller cost is rounding

double inverse_root(double norm) { return norm > 0.0 ? 1.0 / std::sqrt(norm) : 1.0; }

/// rhs_z = weights z - y
SAGE_CLONES void pull(std::size_t limits, const double* weights, const double* z, const double* y,
                      double* pulled) {
  for (std::size_t i = 0; i < limits; ++i) pulled[i] = weights[i] * z[i] - y[i];
}

SAGE_CLONES void right_side(std::size_t n, double sigma, const double* x, const double* q, const double* box,
                            double* rhs) {
  for (std::size_t i = 0; i < n; ++i) rhs[i] += sigma * x[i] - q[i] + box[i];
}

SAGE_CLONES void relax(std::size_t n, double alpha, const double* x_tilde, double* x) {
  for (std::size_t i = 0; i < n; ++i) x[i] = alpha * x_tilde[i] + (1.0 - alpha) * x[i];
}

SAGE_CLONES void clamp_limits(std::size_t limits, double alpha, const double* z_tilde, const double* weights,
                              const double* lower, const double* upper, double* z, double* y) {
  for (std::size_t i = 0; i < limits; ++i) {
    const double v = alpha * z_tilde[i] + (1.0 - alpha) * z[i] + y[i] / weights[i];
    double clamped = v < lower[i] ? lower[i] : v;
    clamped = clamped > upper[i] ? upper[i] : clamped;
    z[i] = clamped;
    y[i] = weights[i] * (v - clamped);
  }
}

}  // namespace

void validate(const AdmmOptions& options) {
  const auto require = [](bool holds, const char* what, double value) {
    if (!holds) throw ConfigError(std::string(what) + ", got " + std::to_string(value));
  };
  require(options.rho > 0.0 && std::isfinite(options.rho), "rho: expected a number > 0", options.rho);
  require(options.sigma > 0.0 && std::isfinite(options.sigma), "sigma: expected a number > 0", options.sigma);
  require(options.alpha > 0.0 && options.alpha < 2.0, "alpha: expected a number in (0, 2)", options.alpha);
}

AdmmProblem::AdmmProblem(const QpMatrices& matrices, const Cholesky* P_factor, const AdmmOptions& options)
    : original_(matrices), P_factor_(P_factor), options_(options), order_(thin_order(matrices)) {
  validate(options);
  const std::size_t n = matrices.n();
  const std::size_t m = matrices.m();
  std::vector<double> d(n, 1.0);
  row_scale_.assign(m, 1.0);
  std::vector<double> columns(n);
  double P_norms = 0.0;
  for (int round = 0; round < kRuizRounds; ++round) {
    std::fill(columns.begin(), columns.end(), 0.0);
    for (std::size_t r = 0; r < n; ++r) {
      matrices.P().for_row(r, [&](std::size_t c, double value) {
        const double size = std::fabs(value) * d[r];
        columns[c] = size > columns[c] ? size : columns[c];
      });
    }
    P_norms = 0.0;
    for (std::size_t c = 0; c < n; ++c) P_norms += columns[c] * d[c];
    double furthest = 0.0;
    std::vector<double> rows(m, 0.0);
    for (std::size_t r = 0; r < m; ++r) {
      matrices.A().for_row(r, [&](std::size_t c, double value) {
        const double size = std::fabs(value) * row_scale_[r];
        columns[c] = size > columns[c] ? size : columns[c];
        rows[r] = size * d[c] > rows[r] ? size * d[c] : rows[r];
      });
    }
    for (std::size_t c = 0; c < n; ++c) {
      const double norm = columns[c] * d[c];
      if (norm > 0.0) furthest = std::max(furthest, std::fabs(1.0 - norm));
      d[c] *= inverse_root(norm);
    }
    for (std::size_t r = 0; r < m; ++r) {
      if (rows[r] > 0.0) furthest = std::max(furthest, std::fabs(1.0 - rows[r]));
      row_scale_[r] *= inverse_root(rows[r]);
    }
    if (furthest < kRuizDone) break;
  }
  if (P_norms > 0.0) cost_scale_ = static_cast<double>(n) / P_norms;
  variable_scale_.resize(n);
  place_.resize(n);
  for (std::uint32_t i = 0; i < n; ++i) {
    variable_scale_[i] = d[order_[i]];
    place_[order_[i]] = i;
  }
  std::vector<double> P_scale(n);
  for (std::size_t i = 0; i < n; ++i) P_scale[i] = cost_scale_ * variable_scale_[i];  // 0 for a P of zeros
  std::vector<std::uint32_t> same(m);
  std::iota(same.begin(), same.end(), 0U);
  P_ = Matrix(matrices.P(), order_, P_scale.data(), order_, variable_scale_.data());
  A_ = Matrix(matrices.A(), same, row_scale_.data(), order_, variable_scale_.data());
}

void AdmmProblem::fill(const double* weights, double shift, Cholesky& factor) const {
  double* K = factor.matrix();
  P_.fill_upper(K);
  A_.add_gram(weights, K);
  for (std::size_t i = 0; i < n(); ++i) K[i * factor.stride() + i] += shift + weights[m() + i];
}

void AdmmProblem::scale_x(const double* x, double* scaled) const {
  for (std::size_t i = 0; i < n(); ++i) scaled[i] = x[order_[i]] / variable_scale_[i];
}

void AdmmProblem::unscale_x(const double* scaled, double* x) const {
  for (std::size_t i = 0; i < n(); ++i) x[order_[i]] = scaled[i] * variable_scale_[i];
}

void AdmmProblem::scale_q(const double* q, double cost_scale, double* scaled) const {
  for (std::size_t i = 0; i < n(); ++i) scaled[i] = cost_scale * variable_scale_[i] * q[order_[i]];
}

void AdmmProblem::scale_limits(const double* limits, double* scaled) const {
  for (std::size_t r = 0; r < m(); ++r) scaled[r] = row_scale_[r] * limits[r];
  scale_x(limits + m(), scaled + m());
}

void AdmmProblem::scale_y(const double* y, double cost_scale, double* scaled) const {
  for (std::size_t r = 0; r < m(); ++r) scaled[r] = cost_scale / row_scale_[r] * y[r];
  for (std::size_t i = 0; i < n(); ++i)
    scaled[m() + i] = cost_scale * variable_scale_[i] * y[m() + order_[i]];
}

void AdmmProblem::unscale_y(const double* scaled, double cost_scale, double* y) const {
  for (std::size_t r = 0; r < m(); ++r) y[r] = row_scale_[r] / cost_scale * scaled[r];
  for (std::size_t i = 0; i < n(); ++i)
    y[m() + order_[i]] = scaled[m() + i] / (cost_scale * variable_scale_[i]);
}

double AdmmProblem::cost_scale(const double* q) const {
  if (cost_scale_ > 0.0) return cost_scale_;
  const double size = gradient_size(q);
  return size > 0.0 ? 1.0 / size : 1.0;
}

double AdmmProblem::gradient_size(const double* gradient) const {
  double largest = 0.0;
  for (std::size_t i = 0; i < n(); ++i)
    largest = std::max(largest, variable_scale_[i] * std::fabs(gradient[order_[i]]));
  return largest;
}

double AdmmProblem::size(const double* x) const {
  double largest = 0.0;
  for (std::size_t i = 0; i < n(); ++i)
    largest = std::max(largest, std::fabs(x[order_[i]]) / variable_scale_[i]);
  return largest;
}

double QpStanding::energy() const {
  constexpr double kFloor = 1e-16;
  const double largest = std::max({violation, gap, kFloor});
  const bool finite = std::isfinite(violation) && std::isfinite(gap);
  return finite ? std::log10(largest) : std::numeric_limits<double>::quiet_NaN();
}

AdmmFactor::AdmmFactor(std::size_t n, std::size_t limits)
    : cholesky(n),
      inverse(n <= kInverseUpTo ? packed(n) * packed(n) : 0),
      weights(packed(limits), kNoWeight) {}

AdmmState::AdmmState(const AdmmProblem& problem)
    : problem_(problem),
      vectors_(problem.n(), problem.limits()),
      factor_{std::make_shared<AdmmFactor>(problem.n(), problem.limits())},
      polish_factor_{std::make_shared<AdmmFactor>(problem.n(), problem.limits())},
      rho_(problem.options().rho) {
  const std::size_t n = packed(problem.n());
  const std::size_t limits = packed(problem.limits());
  for (Packs* of_x : {&q_, &x_, &x_before_, &x_tilde_, &x_out_, &x_saved_}) of_x->resize(n, 0.0);
  for (Packs* of_limits :
       {&lower_, &upper_, &z_, &z_tilde_, &y_, &y_before_, &pulled_, &weights_, &y_out_, &y_saved_}) {
    of_limits->resize(limits, 0.0);
  }
  scratch_.resize(3 * n + limits, 0.0);
}

AdmmState AdmmState::fork() {
  factor_.owned = polish_factor_.owned = false;
  return *this;
}

void AdmmState::start(const QpVectors& vectors, const double* x0, const double* y0, double offset) {
  vectors_ = vectors;
  offset_ = offset;
  cost_scale_ = problem_.cost_scale(vectors.q.data());
  problem_.scale_q(vectors.q.data(), cost_scale_, q_.data());
  problem_.scale_limits(vectors.lower.data(), lower_.data());
  problem_.scale_limits(vectors.upper.data(), upper_.data());
  rho_ = problem_.options().rho;
  iterations_ = 0;
  next_adaptation_ = kFirstAdaptation;
  move_to(x0, y0);
}

void AdmmState::move_to(const double* x, const double* y) {
  std::fill(x_.begin(), x_.end(), 0.0);
  std::fill(y_.begin(), y_.end(), 0.0);
  if (x != nullptr) problem_.scale_x(x, x_.data());
  if (y != nullptr) problem_.scale_y(y, cost_scale_, y_.data());
  rows_of(x_.data(), z_.data());
  x_before_ = x_;
  y_before_ = y_;
  measure();
}

void AdmmState::advance(std::size_t iterations) {
  for (std::size_t i = 0; i < iterations; ++i) {
    if (i == 0) refactor_if_stale();
    if (i + 1 == iterations) {
      std::copy(x_.begin(), x_.end(), x_before_.begin());
      std::copy(y_.begin(), y_.end(), y_before_.begin());
    }
    iterate();
    if (++iterations_ == next_adaptation_) {
      next_adaptation_ *= 2;
      adapt();
      if (i + 1 < iterations) refactor_if_stale();  // or else when the next step is taken, if one is
    }
  }
  measure();
}

/// out[limits] = (A x, x).
void AdmmState::rows_of(const double* x, double* out) const {
  problem_.A().times(x, out);
  std::memcpy(out + problem_.m(), x, problem_.n() * sizeof(double));
}

void AdmmState::refactor_if_stale() {
  for (std::size_t i = 0; i < problem_.limits(); ++i) {
    const bool free = std::isinf(lower_[i]) && std::isinf(upper_[i]);
    const bool equality = lower_[i] == upper_[i];
    weights_[i] = free ? kLeastWeight : equality ? kEqualityWeight * rho_ : rho_;
  }
  if (weights_ == factor_->weights) return;
  refactor(factor_, weights_, problem_.options().sigma);
  if (!factor_->inverse.empty()) invert();
}

void AdmmState::refactor(SharedFactor& factor, const Packs& weights, double shift) const {
  if (!factor.owned) factor = {std::make_shared<AdmmFactor>(problem_.n(), problem_.limits())};
  problem_.fill(weights.data(), shift, factor->cholesky);
  factor->cholesky.factor(0.0);
  factor->weights = weights;
}

/// The inverse of what `factor_` factors.
void AdmmState::invert() {
  const std::size_t stride = packed(problem_.n());
  std::fill(factor_->inverse.begin(), factor_->inverse.end(), 0.0);
  for (std::size_t i = 0; i < problem_.n(); ++i) {
    factor_->inverse[i * stride + i] = 1.0;
    factor_->cholesky.solve(factor_->inverse.data() + i * stride);
  }
}

void AdmmState::iterate() {
  const std::size_t n = problem_.n();
  const double alpha = problem_.options().alpha;
  pull(problem_.limits(), weights_.data(), z_.data(), y_.data(), pulled_.data());
  double* rhs = scratch_.data();
  problem_.A().transposed_times(pulled_.data(), rhs);
  right_side(n, problem_.options().sigma, x_.data(), q_.data(), pulled_.data() + problem_.m(), rhs);
  if (factor_->inverse.empty()) {
    std::copy_n(rhs, packed(n), x_tilde_.data());
    factor_->cholesky.solve(x_tilde_.data());
  } else {
    combine(rhs, factor_->inverse.data(), n, packed(n), packed(n), nullptr, 1.0, x_tilde_.data());
  }
  rows_of(x_tilde_.data(), z_tilde_.data());
  relax(n, alpha, x_tilde_.data(), x_.data());
  clamp_limits(problem_.limits(), alpha, z_tilde_.data(), weights_.data(), lower_.data(), upper_.data(),
               z_.data(), y_.data());
}

void AdmmState::measure() {
  problem_.unscale_x(x_.data(), x_out_.data());
  clip(problem_.original(), vectors_, x_out_.data());
  problem_.unscale_y(y_.data(), cost_scale_, y_out_.data());
  problem_.original().all_rows(x_out_.data(), z_tilde_.data());
  residuals_ =
      problem_.original().residuals(vectors_, x_out_.data(), z_tilde_.data(), y_out_.data(), scratch_.data());
  standing_ = stand();
}

/// What following the gradient gains without curvature: as far as the limits of x, or else, where they are
/// far or missing, as far as x is large. The second is the largest scaled entry that only the size of x
/// bounds.
std::pair<double, double> AdmmState::descent_left(const double* gradient) const {
  const double size = problem_.size(x_out_.data());
  double gain = 0.0;
  double unbounded = 0.0;
  for (std::size_t i = 0; i < problem_.n(); ++i) {
    if (gradient[i] == 0.0) continue;
    const std::size_t limit = problem_.m() + i;
    const double room =
        gradient[i] > 0.0 ? x_out_[i] - vectors_.lower[limit] : vectors_.upper[limit] - x_out_[i];
    const double steep = std::fabs(gradient[i]);
    const double scale = problem_.variable_scale(i);
    if (room <= kFar * size * scale) {
      gain += steep * room;
    } else {
      gain += steep * size * scale;
      unbounded = std::max(unbounded, steep * scale);
    }
  }
  return {gain, unbounded};
}

/// From what `measure` has left: the rows in z_tilde_, the gradient's terms in scratch_.
QpStanding AdmmState::stand() {
  const std::size_t n = problem_.n();
  const double* rows = z_tilde_.data();
  double outside = 0.0;
  double size = 0.0;
  double slack = 0.0;  // what the multipliers say that x has not used of its limits
  double signed_slack = 0.0;
  for (std::size_t i = 0; i < vectors_.used; ++i) {
    const double scale = problem_.limit_scale(i);
    const double above = rows[i] - vectors_.upper[i];
    const double below = vectors_.lower[i] - rows[i];
    size = std::max(size, scale * std::fabs(rows[i]));
    if (above > 0.0 || below > 0.0) {
      outside = std::max(outside, scale * std::max(above, below));
      size = std::max(size, scale * std::fabs(above > below ? vectors_.upper[i] : vectors_.lower[i]));
    }
    if (y_out_[i] == 0.0) continue;
    const double unused = y_out_[i] * (y_out_[i] > 0.0 ? -above : below);
    slack += std::fabs(unused);
    signed_slack += unused;
  }
  const double* Px = scratch_.data();
  const double* Aty = Px + packed(n);
  double* gradient = scratch_.data() + 2 * packed(n);
  double bent = 0.0;   // what following the gradient gains, at most
  double steep = 0.0;  // the gradient over its terms
  if (problem_.P_factor() != nullptr) {
    double* step = x_tilde_.data();
    std::copy_n(gradient, n, step);
    std::fill(step + n, step + packed(n), 0.0);
    problem_.P_factor()->solve(step);
    for (std::size_t i = 0; i < n; ++i) bent += 0.5 * gradient[i] * step[i];
    bent = std::fabs(bent);
  } else {
    double left;
    std::tie(bent, left) = descent_left(gradient);
    if (left > 0.0) {
      steep = left / std::max({problem_.gradient_size(Px), problem_.gradient_size(Aty),
                               problem_.gradient_size(vectors_.q.data())});
    }
  }
  QpStanding found;
  found.violation = outside > 0.0 ? outside / size : 0.0;
  found.dual_objective = residuals_.objective - signed_slack - bent;
  const double gap = slack + bent;
  const double cost =
      std::max({std::fabs(residuals_.objective + offset_), std::fabs(found.dual_objective + offset_),
                kLeastCost * std::max(residuals_.gap_scale, std::fabs(offset_))});
  found.gap = std::max(gap > 0.0 ? gap / cost : 0.0, steep);
  const bool finite =
      std::isfinite(residuals_.primal) && std::isfinite(residuals_.dual) && std::isfinite(gap);
  if (!finite) found.gap = std::numeric_limits<double>::quiet_NaN();
  return found;
}

/// Balances the residuals of the splitting, each relative to its terms.
void AdmmState::adapt() {
  rows_of(x_.data(), z_tilde_.data());
  double apart = 0.0;
  for (std::size_t i = 0; i < problem_.limits(); ++i) apart = std::max(apart, std::fabs(z_tilde_[i] - z_[i]));
  const double primal = apart / std::max({max_abs(z_tilde_.data(), problem_.limits()),
                                          max_abs(z_.data(), problem_.limits()), 1e-10});
  measure();
  const double dual = residuals_.dual / std::max(residuals_.dual_scale, std::numeric_limits<double>::min());
  const double wanted = std::clamp(rho_ * std::sqrt(primal / std::max(dual, 1e-10)), 1e-6, 1e6);
  if (wanted > kWorthAdapting * rho_ || wanted * kWorthAdapting < rho_) rho_ = wanted;
}

bool AdmmState::polish() {
  const std::size_t limits = problem_.limits();
  const QpStanding before = standing_;
  x_saved_ = x_;
  y_saved_ = y_;
  Packs& on = z_tilde_;    // 1 / shift where a limit is taken as active
  Packs& bound = pulled_;  // that limit
  for (std::size_t i = 0; i < limits; ++i) {
    const bool at_lower = z_[i] - lower_[i] < -y_[i];
    const bool at_upper = upper_[i] - z_[i] < y_[i];
    const bool active = at_lower || at_upper || lower_[i] == upper_[i];
    on[i] = active ? 1.0 / kPolishShift : 0.0;
    bound[i] = at_lower ? lower_[i] : active ? upper_[i] : 0.0;
    if (!active) y_[i] = 0.0;
  }
  if (on != polish_factor_->weights) refactor(polish_factor_, on, kPolishShift);
  for (int round = 0; round < kPolishRounds; ++round) polish_once(on, bound);
  for (std::size_t i = 0; i < limits; ++i) {
    if (lower_[i] == upper_[i] || on[i] == 0.0) continue;
    y_[i] = bound[i] == lower_[i] ? std::min(y_[i], 0.0) : std::max(y_[i], 0.0);
  }
  return keep_if_better(before);
}

/// Goes on from x_ and y_, or back to what was saved of them, whichever is nearer to the solution.
bool AdmmState::keep_if_better(const QpStanding& before) {
  measure();
  if (standing_.energy() < before.energy()) {
    rows_of(x_.data(), z_.data());
    for (std::size_t i = 0; i < problem_.limits(); ++i) z_[i] = std::clamp(z_[i], lower_[i], upper_[i]);
    return true;
  }
  x_ = x_saved_;
  y_ = y_saved_;
  measure();
  return false;
}

bool AdmmState::take(const double* x, const double* y) {
  const QpStanding before = standing_;
  x_saved_ = x_;
  y_saved_ = y_;
  std::copy_n(x, problem_.n(), x_.data());
  std::copy_n(y, problem_.limits(), y_.data());
  return keep_if_better(before);
}

void AdmmState::scaled_vectors(QpVectors& scaled) const {
  scaled.q = q_;
  scaled.lower = lower_;
  scaled.upper = upper_;
  scaled.used = vectors_.used;
}

/// One refinement of the equality-constrained QP of the active limits, on its regularised normal equations.
void AdmmState::polish_once(const Packs& on, const Packs& bound) {
  const std::size_t n = problem_.n();
  const std::size_t limits = problem_.limits();
  double* rhs = x_tilde_.data();
  double* Px = scratch_.data();
  double* rows = Px + packed(n);
  problem_.P().times(x_.data(), Px);
  rows_of(x_.data(), rows);
  for (std::size_t i = 0; i < limits; ++i) {
    const double error = on[i] == 0.0 ? 0.0 : rows[i] - bound[i];
    rows[i] = y_[i] + on[i] * error;
    y_[i] = rows[i];
  }
  problem_.A().transposed_times(rows, rhs);
  for (std::size_t i = 0; i < n; ++i) rhs[i] = -(rhs[i] + rows[problem_.m() + i] + Px[i] + q_[i]);
  polish_factor_->cholesky.solve(rhs);
  for (std::size_t i = 0; i < n; ++i) x_[i] += rhs[i];
  rows_of(rhs, rows);
  for (std::size_t i = 0; i < limits; ++i) y_[i] += on[i] * rows[i];
}

QpStatus AdmmState::infeasibility(double tolerance, double* x, double* y) {
  if (primal_certificate(tolerance, y)) return QpStatus::kPrimalInfeasible;
  if (dual_certificate(tolerance, x)) return QpStatus::kDualInfeasible;
  return QpStatus::kRunning;
}

bool AdmmState::primal_certificate(double tolerance, double* y) {
  const std::size_t limits = problem_.limits();
  for (std::size_t i = 0; i < limits; ++i) z_tilde_[i] = y_[i] - y_before_[i];
  problem_.unscale_y(z_tilde_.data(), cost_scale_, y);
  for (std::size_t i = 0; i < limits; ++i) {
    if (std::isinf(y[i] > 0.0 ? vectors_.upper[i] : vectors_.lower[i])) y[i] = 0.0;
  }
  const double size = max_abs(y, limits);
  if (!(size > 0.0)) return false;
  double* Aty = scratch_.data();
  std::fill_n(Aty, packed(problem_.n()), 0.0);
  double support = 0.0;
  for (std::size_t i = 0; i < limits; ++i) {
    y[i] /= size;
    if (y[i] == 0.0) continue;
    problem_.original().add_row(i, y[i], Aty);
    support += y[i] * (y[i] > 0.0 ? vectors_.upper[i] : vectors_.lower[i]);
  }
  return support < -tolerance && max_abs(Aty, problem_.n()) <= tolerance * std::min(1.0, -support);
}

bool AdmmState::dual_certificate(double tolerance, double* x) {
  const std::size_t n = problem_.n();
  for (std::size_t i = 0; i < n; ++i) x_tilde_[i] = x_[i] - x_before_[i];
  double* direction = scratch_.data();
  std::fill_n(direction, packed(n), 0.0);
  problem_.unscale_x(x_tilde_.data(), direction);
  const double size = max_abs(direction, n);
  if (!(size > 0.0)) return false;
  double descent = 0.0;
  for (std::size_t i = 0; i < n; ++i) {
    direction[i] /= size;
    descent += vectors_.q[i] * direction[i];
  }
  if (!(descent < -tolerance)) return false;
  const double small = tolerance * std::min(1.0, -descent);
  double* image = direction + packed(n);
  problem_.original().P().times(direction, image);
  if (max_abs(image, n) > small) return false;
  problem_.original().all_rows(direction, z_tilde_.data());
  for (std::size_t i = 0; i < problem_.limits(); ++i) {
    if (z_tilde_[i] > small && !std::isinf(vectors_.upper[i])) return false;
    if (z_tilde_[i] < -small && !std::isinf(vectors_.lower[i])) return false;
  }
  std::copy_n(direction, n, x);
  return true;
}

}  // namespace sage
