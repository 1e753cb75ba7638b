#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "bindings/arrays.h"
#include "core/thread_pool.h"
#include "kernels/qp_solver.h"

// What the bindings of the QP solver share: its arguments, what it finds, and a run on its way.
namespace sage::bindings {

using Doubles = Array<double>;
using MaybeDoubles = std::optional<Doubles>;

inline constexpr const char* kStatusNames[] = {"running", "solved", "max_iterations", "primal_infeasible",
                                               "dual_infeasible"};

/// A vector of that length, checked; the quick way for one that is right.
/// @throws ShapeError
inline const double* vector_of(const Doubles& array, const char* name, std::size_t length) {
  const bool plain = array.ndim() == 1 && array.shape(0) == static_cast<pybind11::ssize_t>(length) &&
                     pybind11::array_t<double, pybind11::array::c_style>::check_(array);
  if (!plain) require_array(array, name, {{static_cast<pybind11::ssize_t>(length)}});
  return data(array);
}

inline const double* vector_or_null(const MaybeDoubles& array, const char* name, std::size_t length) {
  return array ? vector_of(*array, name, length) : nullptr;
}

/// A solver, and the locks that let Python threads take turns: in finish(), and in all else.
struct Solver {
  Solver(const double* P, const double* A, std::size_t n, std::size_t m, const AdmmOptions& options)
      : core(P, A, n, m, options) {}

  std::size_t n() const { return core.matrices().n(); }
  std::size_t m() const { return core.matrices().m(); }
  std::size_t limits() const { return core.matrices().limits(); }

  QpSolver core;
  std::mutex turn;
  std::mutex finishing;
};

/// Results of `count` QPs in one block each.
struct Solutions {
  Solutions(std::size_t count, std::size_t n_, std::size_t m_)
      : n(n_), m(m_), x(count * n), y(count * (m + n)), outputs(count) {
    for (std::size_t i = 0; i < count; ++i) {
      outputs[i].x = x.data() + i * n;
      outputs[i].y = y.data() + i * (m + n);
    }
  }

  std::size_t n;
  std::size_t m;
  Packs x;
  Packs y;
  std::vector<QpOutput> outputs;
};

struct Solution : Solutions {
  Solution(std::size_t n_, std::size_t m_) : Solutions(1, n_, m_) {}
  const QpOutput& only() const { return outputs[0]; }
};

/// A state of ADMM and what it needs to stay alive.
struct QpRun {
  std::shared_ptr<Solver> solver;
  AdmmState state;
  double eps;

  /// No limit is violated by more than eps in its own unit, nor by a tenth of it in the units of the solver.
  bool feasible() const { return state.residuals().primal <= eps && state.standing().violation <= 0.1 * eps; }
};

}  // namespace sage::bindings
