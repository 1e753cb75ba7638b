#include "kernels/chain_qp.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace sage {

namespace {

using Vector = std::vector<double>;

constexpr int kMostIterations = 60;
constexpr double kGap = 1e-13;        // of complementarity, over the terms of the cost
constexpr double kTolerance = 1e-10;  // of residuals, over what they are made of
constexpr double kInside = 0.05;      // share of the room between two limits that the start keeps from either
constexpr double kBack = 0.995;       // share of the way to the nearest limit that a step takes
constexpr double kPivot = 1e-15;      // of what a diagonal entry was: less is rounding
constexpr double kStill = 1e100;      // pivot of a variable that this step leaves where it is
constexpr double kFixed = 1e-12;      // room in which a variable cannot move

/// A symmetric matrix of a chain and its Cholesky factor. A closed chain is folded, 0, n - 1, 1, n - 2, ...:
/// its ends meet, and the band is twice as wide.
class Band {
 public:
  Band(std::size_t n, bool closed) : n_(n), closed_(closed), width_(closed ? 5 : 3), entries_(n * width_) {}

  void clear() { std::fill(entries_.begin(), entries_.end(), 0.0); }
  void add(std::size_t i, std::size_t j, double value) {
    const std::size_t a = place(i), b = place(j);
    at(std::max(a, b), a > b ? a - b : b - a) += value;
  }
  void factor() {
    for (std::size_t row = 0; row < n_; ++row) {
      for (std::size_t back = std::min(row, width_ - 1) + 1; back-- > 0;) {
        const std::size_t column = row - back;
        double sum = at(row, back);
        for (std::size_t k = row < width_ ? 0 : row - width_ + 1; k < column; ++k) {
          if (column - k < width_) sum -= at(row, row - k) * at(column, column - k);
        }
        if (back > 0) {
          at(row, back) = sum / at(column, 0);
        } else {
          at(row, 0) = sum > kPivot * at(row, 0) ? std::sqrt(sum) : kStill;
        }
      }
    }
  }
  /// In place.
  void solve(Vector& x) {
    work_.resize(n_);
    for (std::size_t i = 0; i < n_; ++i) work_[place(i)] = x[i];
    for (std::size_t row = 0; row < n_; ++row) {
      for (std::size_t back = 1; back <= std::min(row, width_ - 1); ++back) {
        work_[row] -= at(row, back) * work_[row - back];
      }
      work_[row] /= at(row, 0);
    }
    for (std::size_t row = n_; row-- > 0;) {
      work_[row] /= at(row, 0);
      for (std::size_t back = 1; back <= std::min(row, width_ - 1); ++back) {
        work_[row - back] -= at(row, back) * work_[row];
      }
    }
    for (std::size_t i = 0; i < n_; ++i) x[i] = work_[place(i)];
  }

 private:
  std::size_t place(std::size_t i) const {
    if (!closed_) return i;
    return 2 * i < n_ ? 2 * i : 2 * (n_ - i) - 1;
  }
  double& at(std::size_t row, std::size_t back) { return entries_[row * width_ + back]; }

  std::size_t n_;
  bool closed_;
  std::size_t width_;
  Vector entries_;
  Vector work_;
};

/// One side of a limit: sign * (value - bound) = slack > 0, with its multiplier.
struct Side {
  std::size_t of;  // a variable, or n plus a row
  double sign, bound;
  double slack, multiplier = 0.0;
  double residual = 0.0, d_slack = 0.0, d_multiplier = 0.0;
};

class Solver {
 public:
  explicit Solver(const ChainQp& problem)
      : in_(problem),
        band_(problem.n, problem.closed),
        fixed_(problem.n),
        x_(problem.n),
        gradient_(problem.n),
        step_(problem.n),
        values_(problem.n + problem.m),
        changes_(problem.n + problem.m) {
    start();
  }

  double run(double* x) {
    for (int round = 0; round < kMostIterations && !done(); ++round) improve();
    for (std::size_t i = 0; i < in_.n; ++i) x[i] = std::clamp(x_[i], in_.lb[i], in_.ub[i]);
    double cost = 0.0;
    for_pairs(
        [&](std::size_t i, std::size_t j, double P) { cost += (i == j ? 0.5 : 1.0) * P * x[i] * x[j]; });
    for (std::size_t i = 0; i < in_.n; ++i) cost += in_.q[i] * x[i];
    return cost;
  }

 private:
  /// Calls use(i, j, P) for every pair that the cost couples, once.
  template <class Use>
  void for_pairs(const Use& use) const {
    for (std::size_t k = 0; k < 3; ++k) {
      const std::size_t count = in_.closed ? in_.n : in_.n - std::min(in_.n, k);
      for (std::size_t i = 0; i < count; ++i) use(i, (i + k) % in_.n, in_.P[k * in_.n + i]);
    }
  }
  std::array<std::size_t, 3> variables(std::size_t row) const {
    const std::size_t first = in_.closed ? row + in_.n - 1 : row;
    return {first % in_.n, (first + 1) % in_.n, (first + 2) % in_.n};
  }
  /// What the limits bound: x, and A x.
  void bounded(const Vector& x, Vector& values) const {
    std::copy(x.begin(), x.end(), values.begin());
    for (std::size_t row = 0; row < in_.m; ++row) {
      const auto at = variables(row);
      values[in_.n + row] = 0.0;
      for (std::size_t k = 0; k < 3; ++k) values[in_.n + row] += in_.A[3 * row + k] * x[at[k]];
    }
  }
  /// Adds `amount` times the gradient of what a side bounds.
  void add_normal(const Side& side, double amount, Vector& out) const {
    if (side.of < in_.n) {
      out[side.of] += amount;
      return;
    }
    const std::size_t row = side.of - in_.n;
    const auto at = variables(row);
    for (std::size_t k = 0; k < 3; ++k) out[at[k]] += amount * in_.A[3 * row + k];
  }
  void add_sides(std::size_t of, double lower, double upper, double value) {
    const double room = upper - lower;
    const double least = kInside * (std::isfinite(room) ? room : 1.0);
    if (std::isfinite(lower)) sides_.push_back({of, 1.0, lower, std::max(value - lower, least)});
    if (std::isfinite(upper)) sides_.push_back({of, -1.0, upper, std::max(upper - value, least)});
  }
  void start() {
    for (std::size_t i = 0; i < in_.n; ++i) {
      const double room = in_.ub[i] - in_.lb[i];
      fixed_[i] = !(room > kFixed);
      const double inside = std::isfinite(room) ? kInside * room : 0.0;
      x_[i] = fixed_[i] ? in_.lb[i] : std::clamp(0.0, in_.lb[i] + inside, in_.ub[i] - inside);
      if (!fixed_[i]) add_sides(i, in_.lb[i], in_.ub[i], x_[i]);
    }
    bounded(x_, values_);
    for (std::size_t row = 0; row < in_.m; ++row)
      add_sides(in_.n + row, in_.l[row], in_.u[row], values_[in_.n + row]);
    look();
    for (const double slope : gradient_) slope_ = std::max(slope_, std::fabs(slope));
    double room = 0.0;
    for (const Side& side : sides_) room += side.slack / static_cast<double>(sides_.size());
    for (Side& side : sides_) side.multiplier = slope_ * room / side.slack;
    look();
  }
  /// Residuals at x: of the gradient of the Lagrangian, of each slack, and of complementarity.
  void look() {
    std::copy_n(in_.q, in_.n, gradient_.begin());
    cost_ = 0.0;
    for_pairs([&](std::size_t i, std::size_t j, double P) {
      gradient_[i] += P * x_[j];
      if (i != j) gradient_[j] += P * x_[i];
      cost_ += std::fabs(P * x_[i] * x_[j]);
    });
    for (std::size_t i = 0; i < in_.n; ++i) cost_ += std::fabs(in_.q[i] * x_[i]);
    bounded(x_, values_);
    gap_ = 0.0;
    for (Side& side : sides_) {
      side.residual = side.sign * (values_[side.of] - side.bound) - side.slack;
      gap_ += side.slack * side.multiplier;
      add_normal(side, -side.sign * side.multiplier, gradient_);
    }
    for (std::size_t i = 0; i < in_.n; ++i) {
      if (fixed_[i]) gradient_[i] = 0.0;
    }
  }
  bool done() const {
    double slope = 0.0, apart = 0.0;
    for (const double entry : gradient_) slope = std::max(slope, std::fabs(entry));
    for (const Side& side : sides_)
      apart = std::max(apart, std::fabs(side.residual) / (1.0 + std::fabs(side.bound)));
    return gap_ <= kGap * cost_ && slope <= kTolerance * slope_ && apart <= kTolerance;
  }
  /// Solves the Newton system for products of slack and multiplier that become `target` less what `second`
  /// says of the last direction.
  void direct(double target, bool second) {
    for (std::size_t i = 0; i < in_.n; ++i) step_[i] = -gradient_[i];
    const auto wanted = [&](const Side& side) {
      return target - side.slack * side.multiplier - (second ? side.d_slack * side.d_multiplier : 0.0);
    };
    for (const Side& side : sides_) {
      add_normal(side, side.sign * (wanted(side) - side.multiplier * side.residual) / side.slack, step_);
    }
    for (std::size_t i = 0; i < in_.n; ++i) {
      if (fixed_[i]) step_[i] = 0.0;
    }
    band_.solve(step_);
    bounded(step_, changes_);
    for (Side& side : sides_) {
      const double product = wanted(side);
      side.d_slack = side.sign * changes_[side.of] + side.residual;
      side.d_multiplier = (product - side.multiplier * side.d_slack) / side.slack;
    }
  }
  void factor() {
    band_.clear();
    const auto add = [&](std::size_t i, std::size_t j, double value) {
      if (!fixed_[i] && !fixed_[j]) band_.add(i, j, value);
    };
    for_pairs(add);
    for (std::size_t i = 0; i < in_.n; ++i) {
      if (fixed_[i]) band_.add(i, i, 1.0);
    }
    for (const Side& side : sides_) {
      const double weight = side.multiplier / side.slack;
      if (side.of < in_.n) {
        add(side.of, side.of, weight);
        continue;
      }
      const std::size_t row = side.of - in_.n;
      const auto at = variables(row);
      for (std::size_t a = 0; a < 3; ++a) {
        for (std::size_t b = a; b < 3; ++b)
          add(at[a], at[b], weight * in_.A[3 * row + a] * in_.A[3 * row + b]);
      }
    }
    band_.factor();
  }
  /// How far slacks and multipliers may go before one of them is 0.
  double reach() const {
    double way = 1.0;
    for (const Side& side : sides_) {
      if (side.d_slack < 0.0) way = std::min(way, -side.slack / side.d_slack);
      if (side.d_multiplier < 0.0) way = std::min(way, -side.multiplier / side.d_multiplier);
    }
    return way;
  }
  /// One step of Mehrotra's predictor and corrector.
  void improve() {
    factor();
    direct(0.0, false);
    const double way = reach();
    double left = 0.0;
    for (const Side& side : sides_) {
      left += (side.slack + way * side.d_slack) * (side.multiplier + way * side.d_multiplier);
    }
    const double share = gap_ > 0.0 ? left / gap_ : 0.0;
    const double mean = sides_.empty() ? 0.0 : gap_ / static_cast<double>(sides_.size());
    direct(share * share * share * mean, true);
    const double taken = std::min(1.0, kBack * reach());
    for (std::size_t i = 0; i < in_.n; ++i) x_[i] += taken * step_[i];
    for (Side& side : sides_) {
      side.slack += taken * side.d_slack;
      side.multiplier += taken * side.d_multiplier;
    }
    look();
  }

  const ChainQp& in_;
  Band band_;
  std::vector<bool> fixed_;
  Vector x_, gradient_, step_;
  Vector values_, changes_;  // of what the limits bound, and how the step changes it
  std::vector<Side> sides_;
  double gap_ = 0.0;    // sum of slack times multiplier
  double cost_ = 0.0;   // sum of the sizes of the terms of the cost
  double slope_ = 0.0;  // largest entry of the first gradient
};

}  // namespace

double solve_chain_qp(const ChainQp& problem, double* x) { return Solver(problem).run(x); }

}  // namespace sage
