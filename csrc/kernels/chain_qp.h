#pragma once

#include <cstddef>

namespace sage {

/// min 1/2 x'Px + q'x with lb <= x <= ub and l < A x < u on a chain: a variable meets the next two alone, and
/// on a closed chain the last two meet the first. Borrowed; limits may be infinite.
struct ChainQp {
  std::size_t n;  ///< variables; at least 5 of a closed chain
  bool closed;
  const double*
      P;  ///< [3, n]; P[k, i] couples i and i + k; semidefinite, and definite where there is no bound
  const double* q;    ///< [n]
  const double* lb;   ///< [n]
  const double* ub;   ///< [n]; where it is lb, the variable is fixed
  std::size_t m = 0;  ///< rows; n - 2 at most of an open chain, n of a closed one
  const double* A =
      nullptr;  ///< [m, 3]; row r has the variables r, r + 1, r + 2, of a closed chain from r - 1 on
  const double* l = nullptr;  ///< [m]
  const double* u = nullptr;  ///< [m]
};

/// Solves it by a primal-dual interior-point method, in O(n) and a bounded number of iterations: of rows that
/// cannot be kept x is a compromise, and it is always between its bounds.
///
/// @param x [n], the minimum.
/// @returns 1/2 x'Px + q'x.
double solve_chain_qp(const ChainQp& problem, double* x);

}  // namespace sage
