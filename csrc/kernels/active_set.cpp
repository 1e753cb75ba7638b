#include "kernels/active_set.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace sage {

namespace {

constexpr double kDependent = 1e-11;  // what of a row is left by the active ones, below which it adds nothing
constexpr double kRounding = 1e-12;   // violation of a limit over the terms that it is the difference of
constexpr double kRoundingOfX = 1e-14;  // of an entry of x over the largest
constexpr double kProof = 1e-10;        // what a certificate's support must leave of its terms
constexpr double kCancelled = 1e-2;     // what its rows may leave at x, over its support
constexpr double kCancels = 1e-7;       // what its rows may leave of the entries that they add up
// What is known of a limit.
constexpr std::uint8_t kActive = 1;
constexpr std::uint8_t kSettled = 2;  // follows from the active ones, as far as rounding lets it

}  // namespace

ActiveSet::ActiveSet(const QpMatrices& matrices, const Cholesky& P_factor)
    : matrices_(matrices),
      P_factor_(P_factor),
      width_(packed(matrices.n())),
      stride_(packed(matrices.n() + 1)),
      place_(matrices.limits()),
      inside_(matrices.limits()),
      factor_((matrices.n() + 1) * stride_),
      entry_(stride_),
      change_(stride_),
      free_x_(width_),
      move_(width_),
      rows_(packed(matrices.limits())) {
  active_.reserve(matrices.n() + 1);
}

ActiveSetOutcome ActiveSet::solve(const QpVectors& vectors, const double* guess, std::size_t max_changes,
                                  double* x, double* y) {
  start(vectors, guess);
  for (;;) {
    move_to_multipliers(x);
    matrices_.all_rows(x, rows_.data());
    const Candidate candidate = worst(vectors, x);
    if (candidate.violation == 0.0) break;
    const ActiveSetOutcome outcome = enter(candidate, max_changes, y);
    if (outcome == ActiveSetOutcome::kInfeasible && !proves(vectors, x, y)) {
      inside_[candidate.limit] = kSettled;
    } else if (outcome != ActiveSetOutcome::kOptimal) {
      return outcome;
    }
  }
  write_multipliers(y);
  return ActiveSetOutcome::kOptimal;
}

/// Equalities and guessed limits enter at once; those whose multiplier has the wrong sign leave again.
void ActiveSet::start(const QpVectors& vectors, const double* guess) {
  changes_ = 0;
  active_.clear();
  std::fill(inside_.begin(), inside_.end(), std::uint8_t{0});
  for (std::size_t i = 0; i < width_; ++i) free_x_[i] = -vectors.q[i];
  P_factor_.solve(free_x_.data());
  for (std::size_t limit = 0; limit < vectors.used; ++limit) {
    if (vectors.lower[limit] == vectors.upper[limit]) presume({limit, 1.0, true, 0.0});
  }
  for (std::size_t limit = 0; guess != nullptr && limit < vectors.used; ++limit) {
    if (guess[limit] == 0.0 || inside_[limit] != 0) continue;
    const double side = guess[limit] < 0.0 ? -1.0 : 1.0;
    if (!std::isinf(side > 0.0 ? vectors.upper[limit] : vectors.lower[limit]))
      presume({limit, side, false, 0.0});
  }
  find_multipliers(vectors);
}

/// Takes a limit as active, unless those that are leave nothing of it.
void ActiveSet::presume(const Active& active) {
  if (active_.size() == matrices_.n()) return;
  const double remainder = project(active.limit, active.side);
  if (remainder > 0.0) append(active, remainder);
}

void ActiveSet::find_multipliers(const QpVectors& vectors) {
  for (;;) {
    std::size_t most_negative = active_.size();
    double least = 0.0;
    for (std::size_t j = 0; j < active_.size(); ++j) {
      const Active& a = active_[j];
      const double bound = a.side > 0.0 ? vectors.upper[a.limit] : vectors.lower[a.limit];
      entry_[j] = a.side * (matrices_.row_dot(a.limit, free_x_.data()) - bound);
    }
    solve_lower(entry_.data());
    solve_upper(entry_.data());
    for (std::size_t j = 0; j < active_.size(); ++j) {
      active_[j].multiplier = entry_[j];
      if (!active_[j].equality && entry_[j] < least) {
        least = entry_[j];
        most_negative = j;
      }
    }
    if (most_negative == active_.size()) return;
    drop(most_negative);
  }
}

/// The limit that is violated most, by more than rounding; a violation of 0 when there is none.
ActiveSet::Candidate ActiveSet::worst(const QpVectors& vectors, const double* x) const {
  Candidate found{0, 1.0, 0.0};
  if (max_violation(rows_.data(), vectors.lower.data(), vectors.upper.data(), vectors.used) <= 0.0)
    return found;
  for (std::size_t i = 0; i < vectors.used; ++i) {
    const double above = rows_[i] - vectors.upper[i];
    const double below = vectors.lower[i] - rows_[i];
    const double violation = above > below ? above : below;
    if (violation <= found.violation || inside_[i] != 0) continue;
    const double bound = above > below ? vectors.upper[i] : vectors.lower[i];
    if (violation > rounding(vectors, i, bound, x)) found = {i, above > below ? 1.0 : -1.0, violation};
  }
  return found;
}

/// What rounding may make of a limit's violation: of its own terms, and of an x whose small entries are no
/// more exact than its large ones.
double ActiveSet::rounding(const QpVectors& vectors, std::size_t limit, double bound, const double* x) const {
  const double size = kRoundingOfX * max_abs(x, matrices_.n());
  double error = kRounding * std::fabs(bound);
  const auto add = [&](std::size_t c, double value) {
    error += std::fabs(value) * (kRounding * std::fabs(x[c]) + size);
  };
  if (limit < matrices_.m()) {
    matrices_.A().for_row(limit, add);
  } else {
    add(limit - matrices_.m(), 1.0);
  }
  if (error > kRounding * std::fabs(bound)) return error;
  // A row of zeros, or x is zero: nothing but the other limits says what is small.
  double largest = 0.0;
  for (std::size_t i = 0; i < vectors.used; ++i) {
    for (const double value : {vectors.lower[i], vectors.upper[i]}) {
      if (!std::isinf(value)) largest = std::max(largest, std::fabs(value));
    }
  }
  return error + kRoundingOfX * largest;
}

/// Whether y is a certificate beyond rounding, against every point that is not far larger than x.
bool ActiveSet::proves(const QpVectors& vectors, const double* x, const double* y) {
  double support = 0.0;
  double terms = 0.0;
  double error = 0.0;
  double largest = 0.0;  // of what A'y adds up
  double* Aty = move_.data();
  std::fill_n(Aty, width_, 0.0);
  for (std::size_t i = 0; i < vectors.used; ++i) {
    if (y[i] == 0.0) continue;
    const double term = y[i] * (y[i] > 0.0 ? vectors.upper[i] : vectors.lower[i]);
    support += term;
    terms += std::fabs(term);
    error += std::fabs(y[i]) * rounding(vectors, i, 0.0, x);
    matrices_.add_row(i, y[i], Aty);
    const auto compare = [&](std::size_t, double value) {
      largest = std::max(largest, std::fabs(y[i] * value));
    };
    if (i < matrices_.m()) {
      matrices_.A().for_row(i, compare);
    } else {
      compare(i, 1.0);
    }
  }
  double left = 0.0;
  for (std::size_t i = 0; i < matrices_.n(); ++i) left += std::fabs(Aty[i] * x[i]);
  return support < -kProof * terms - error && left <= -kCancelled * support &&
         max_abs(Aty, width_) <= kCancels * largest;
}

/// Raises the multiplier of a violated limit until it holds, letting go of those that reach zero on the way.
ActiveSetOutcome ActiveSet::enter(Candidate candidate, std::size_t max_changes, double* y) {
  double multiplier = 0.0;
  for (;;) {
    const double remainder = project(candidate.limit, candidate.side);
    const std::size_t count = active_.size();
    std::copy_n(entry_.data(), count, change_.data());
    solve_upper(change_.data());

    std::size_t leaving = count;
    double step = kInfinity;
    for (std::size_t j = 0; j < count; ++j) {
      if (active_[j].equality || change_[j] <= 0.0) continue;
      const double ratio = active_[j].multiplier / change_[j];
      if (ratio < step) {
        step = ratio;
        leaving = j;
      }
    }
    const bool moves = remainder > 0.0 && count < matrices_.n();
    if (!moves && leaving == count) {
      for (std::size_t j = 0; j < count; ++j) active_[j].multiplier = -change_[j];
      write_multipliers(y);
      y[candidate.limit] = candidate.side;
      return ActiveSetOutcome::kInfeasible;
    }
    if (++changes_ > max_changes) return ActiveSetOutcome::kGaveUp;
    const bool enters = moves && candidate.violation / remainder <= step;
    if (enters) step = candidate.violation / remainder;
    multiplier += step;
    for (std::size_t j = 0; j < count; ++j) active_[j].multiplier -= step * change_[j];
    if (enters) {
      append({candidate.limit, candidate.side, false, multiplier}, remainder);
      return ActiveSetOutcome::kOptimal;
    }
    if (moves) candidate.violation -= step * remainder;
    drop(leaving);
  }
}

/// Finds the direction of a limit, unless it is known.
void ActiveSet::know(std::size_t limit) {
  if (place_[limit] != 0) return;
  directions_.resize(directions_.size() + width_, 0.0);
  place_[limit] = static_cast<std::uint32_t>(directions_.size() / width_);
  matrices_.add_row(limit, 1.0, direction(limit));
  P_factor_.solve(direction(limit));
}

/// entry_ = L^-1 N P^-1 a. @returns a'P^-1 a less its share in the active limits, 0 when nothing is left.
double ActiveSet::project(std::size_t limit, double side) {
  know(limit);
  const double* toward = direction(limit);
  const std::size_t count = active_.size();
  for (std::size_t j = 0; j < count; ++j) {
    entry_[j] = side * active_[j].side * matrices_.row_dot(active_[j].limit, toward);
  }
  solve_lower(entry_.data());
  const double whole = matrices_.row_dot(limit, toward);
  double remainder = whole;
  for (std::size_t j = 0; j < count; ++j) remainder -= entry_[j] * entry_[j];
  return remainder > kDependent * whole ? remainder : 0.0;
}

void ActiveSet::append(const Active& active, double remainder) {
  double* row = factor_row(active_.size());
  std::copy_n(entry_.data(), active_.size(), row);
  row[active_.size()] = 1.0 / std::sqrt(remainder);
  active_.push_back(active);
  inside_[active.limit] = kActive;
}

/// Takes a row out of L, and turns what is left back into a triangle by plane rotations.
void ActiveSet::drop(std::size_t index) {
  inside_[active_[index].limit] = 0;
  active_.erase(active_.begin() + static_cast<std::ptrdiff_t>(index));
  const std::size_t count = active_.size();
  for (std::size_t i = index; i < count; ++i) {
    std::copy_n(factor_row(i + 1), i + 2, factor_row(i));
    factor_row(i)[i + 1] = 1.0 / factor_row(i)[i + 1];
  }
  for (std::size_t j = index; j < count; ++j) {
    const double a = factor_row(j)[j];
    const double b = factor_row(j)[j + 1];
    const double length = std::sqrt(a * a + b * b);
    const double cosine = a / length;
    const double sine = b / length;
    for (std::size_t i = j; i < count; ++i) {
      double* row = factor_row(i);
      const double left = row[j];
      row[j] = cosine * left + sine * row[j + 1];
      row[j + 1] = cosine * row[j + 1] - sine * left;
    }
    factor_row(j)[j] = 1.0 / length;
  }
}

void ActiveSet::solve_lower(double* b) const {
  for (std::size_t i = 0; i < active_.size(); ++i) {
    const double* row = factor_row(i);
    for (std::size_t j = 0; j < i; ++j) b[i] -= row[j] * b[j];
    b[i] *= row[i];
  }
}

void ActiveSet::solve_upper(double* b) const {
  for (std::size_t i = active_.size(); i-- > 0;) {
    const double* row = factor_row(i);
    b[i] *= row[i];
    for (std::size_t j = 0; j < i; ++j) b[j] -= row[j] * b[i];
  }
}

void ActiveSet::move_to_multipliers(double* x) const {
  std::memcpy(x, free_x_.data(), width_ * sizeof(double));
  for (const Active& a : active_) {
    combine(&a.multiplier, direction(a.limit), 1, width_, width_, x, -a.side, x);
  }
}

void ActiveSet::write_multipliers(double* y) const {
  std::fill_n(y, matrices_.limits(), 0.0);
  for (const Active& a : active_) y[a.limit] = a.side * a.multiplier;
}

}  // namespace sage
