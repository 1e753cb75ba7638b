#pragma once

#include <cstddef>
#include <vector>

namespace sage {

/// A linear plant x[k + 1] = A x[k] + B u[k] over N stages, played under a feedback law for its inputs:
///
///     u[k] = clip(lead[k] + gain[k] x[k] + spread[k] w[k])
///
/// with the cost sum (x - x_ref)' Q (x - x_ref) over the states 1 .. N (the last by QN) plus (u - u_ref)' R
/// (u - u_ref) over the inputs. Every sum is of terms that are not negative, and each input is made from the
/// state as it was rounded: so neither cost nor states suffer where the plant is unstable. All arrays are
/// row-major.
///
/// Threads: immutable; any number.
class Horizon {
 public:
  /// Copies. `settle` [N, nu, nu] are the inverses of R + B' (cost to go) B; null limits: none.
  struct Parts {
    std::size_t N, nx, nu;
    const double *A, *B, *Q, *QN, *R;      // [nx, nx], [nx, nu], [nx, nx], [nx, nx], [nu, nu]
    const double *gain, *spread, *settle;  // [N, nu, nx], [N, nu, nu], [N, nu, nu]
    const double *x_min, *x_max, *u_min, *u_max;
  };

  /// What a play was.
  struct Outcome {
    double cost = 0.0;
    double excess = 0.0;  // by how much a state leaves its limits
  };

  explicit Horizon(const Parts& parts);

  std::size_t N() const { return N_; }
  std::size_t nx() const { return nx_; }
  std::size_t nu() const { return nu_; }

  /// lead [N, nu] that is best for these references, [N, nx] and [N, nu].
  void lead(const double* x_ref, const double* u_ref, double* lead) const;

  /// Plays from x0 [nx]; `w` [N, nu] null: zero. Inputs are clipped to their limits if `clips`.
  /// Fills x [N + 1, nx] and u [N, nu].
  Outcome play(const double* x0, const double* lead, const double* w, const double* x_ref,
               const double* u_ref, bool clips, double* x, double* u) const;

 private:
  std::size_t N_, nx_, nu_;
  std::vector<double> A_, B_, Q_, QN_, R_, gain_, spread_, settle_;
  std::vector<double> x_min_, x_max_, u_min_, u_max_;
};

}  // namespace sage
