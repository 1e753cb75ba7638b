#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/qp_problem.h"

// Over-relaxed ADMM: the splitting of Stellato et al., "OSQP: an operator splitting solver for quadratic
// programs" (2020), with Ruiz scaling, step sizes by kind of limit, and polishing.
namespace sage {

/// How ADMM runs.
struct AdmmOptions {
  double rho = 0.1;     ///< first step size
  double sigma = 1e-6;  ///< proximal weight of x
  double alpha = 1.6;   ///< over-relaxation, in (0, 2)
};

/// @throws ConfigError naming the option, what was expected and what came.
void validate(const AdmmOptions& options);

/// The QP in scaled units, its variables reordered so that its factors stay thin. Immutable.
///
/// Borrows: the matrices, and the factor of P (null where P is not strictly convex).
class AdmmProblem {
 public:
  AdmmProblem(const QpMatrices& matrices, const Cholesky* P_factor, const AdmmOptions& options);

  const AdmmOptions& options() const { return options_; }
  const QpMatrices& original() const { return original_; }
  const Cholesky* P_factor() const { return P_factor_; }
  std::size_t n() const { return P_.rows(); }
  std::size_t m() const { return A_.rows(); }
  std::size_t limits() const { return n() + m(); }
  const Matrix& A() const { return A_; }
  const Matrix& P() const { return P_; }

  /// Fills the weighted normal matrix P + shift I + A' diag(weights) A, weights [limits].
  void fill(const double* weights, double shift, Cholesky& factor) const;

  /// Between the caller's units and ours, [n] and [limits]; rows of A keep their order.
  void scale_x(const double* x, double* scaled) const;
  void unscale_x(const double* scaled, double* x) const;
  void scale_q(const double* q, double cost_scale, double* scaled) const;
  void scale_limits(const double* limits, double* scaled) const;
  void scale_y(const double* y, double cost_scale, double* scaled) const;
  void unscale_y(const double* scaled, double cost_scale, double* y) const;

  /// Our unit of cost, over the caller's: so that P is of the size of 1, or q [n] where P is zero.
  double cost_scale(const double* q) const;

  /// The largest entry of a gradient [n] in the caller's units, scaled.
  double gradient_size(const double* gradient) const;
  /// The size of x [n], scaled.
  double size(const double* x) const;
  double variable_scale(std::size_t variable) const { return variable_scale_[place_[variable]]; }
  /// The factor that takes a limit's violation to our units.
  double limit_scale(std::size_t limit) const {
    return limit < m() ? row_scale_[limit] : 1.0 / variable_scale_[place_[limit - m()]];
  }

 private:
  const QpMatrices& original_;
  const Cholesky* P_factor_;
  AdmmOptions options_;
  Matrix P_;
  Matrix A_;
  std::vector<std::uint32_t> order_;    // variable i of ours is variable order_[i] of the caller
  std::vector<std::uint32_t> place_;    // variable i of the caller is variable place_[i] of ours
  std::vector<double> variable_scale_;  // x = variable_scale * ours, in our order
  std::vector<double> row_scale_;       // ours = row_scale * (A x)
  double cost_scale_ = 0.0;             // by P; 0 where P is zero
};

/// The factor of one weighted normal matrix.
struct AdmmFactor {
  explicit AdmmFactor(std::size_t n, std::size_t limits);

  Cholesky cholesky;
  Packs inverse;  // where it is small enough to pay; empty where it is not
  Packs weights;
};

/// How good a state is, free of every unit.
struct QpStanding {
  double violation = kInfinity;  ///< of the limits, over the size of what they bound
  /// What is still to be gained, over the larger of both objectives. A bound where P is strictly convex, from
  /// the dual objective that the multipliers alone prove; elsewhere an estimate, which counts the dual
  /// residual too.
  double gap = kInfinity;
  double dual_objective = -kInfinity;  ///< the caller's units, without the offset

  /// log10 of the larger of both, at least -16; NaN where it is not finite.
  double energy() const;
};

/// One QP on its way: the state that ADMM refines. All memory is allocated by the constructor, except that a
/// forked state gets a factor of its own when it first needs another.
///
/// Borrows: the problem.
/// Threads: one at a time; states of one problem, forks included, may run side by side.
class AdmmState {
 public:
  explicit AdmmState(const AdmmProblem& problem);
  AdmmState(AdmmState&&) = default;

  /// A state that goes its own way from here. The two share the factor until one of them needs another.
  AdmmState fork();

  /// Begins with new vectors at x0 [n], y0 [limits] (null: zero), with the factor kept if it still fits. The
  /// gap is relative to the cost with `offset` added.
  void start(const QpVectors& vectors, const double* x0, const double* y0, double offset = 0.0);

  /// Goes on from another point, with the step size as it is.
  void move_to(const double* x, const double* y);

  /// Makes the factor that the first step needs.
  void prepare() { refactor_if_stale(); }

  /// Takes `iterations` steps and measures where they led. Adapts the step size at 25, 50, 100, ... steps.
  void advance(std::size_t iterations);

  /// Solves for the limits that look active, and takes the result if it is nearer to the solution.
  /// @returns whether it was.
  bool polish();

  /// Looks for a certificate in the last step: kPrimalInfeasible, kDualInfeasible or kRunning.
  /// For the first, y [limits] is one: A'y = 0 with a negative support. For the second, x [n] is a direction
  /// of descent without end. Both are overwritten in any case.
  QpStatus infeasibility(double tolerance, double* x, double* y);

  /// Takes an exact solution in scaled units, x [packed(n)] and y [limits], if it is nearer than where we
  /// are.
  /// @returns whether it was.
  bool take(const double* x, const double* y);

  const AdmmProblem& problem() const { return problem_; }
  const double* scaled_x() const { return x_.data(); }
  const double* scaled_y() const { return y_.data(); }
  double cost_scale() const { return cost_scale_; }
  /// Fills what an exact solver takes: the vectors in scaled units.
  void scaled_vectors(QpVectors& scaled) const;

  const double* x() const {
    return x_out_.data();
  }  ///< [n], the caller's units, between its limits to the bit
  const double* y() const { return y_out_.data(); }  ///< [limits]
  const QpResiduals& residuals() const { return residuals_; }
  const QpStanding& standing() const { return standing_; }
  std::size_t iterations() const { return iterations_; }
  const QpVectors& vectors() const { return vectors_; }

 private:
  /// A factor that forks share until one of them needs another.
  struct SharedFactor {
    std::shared_ptr<AdmmFactor> factor;
    bool owned = true;  // nobody else may look at it

    AdmmFactor* operator->() const { return factor.get(); }
  };

  AdmmState(const AdmmState&) = default;

  void rows_of(const double* x, double* out) const;
  void refactor_if_stale();
  void refactor(SharedFactor& factor, const Packs& weights, double shift) const;
  void invert();
  void iterate();
  void measure();
  QpStanding stand();
  std::pair<double, double> descent_left(const double* gradient) const;
  bool keep_if_better(const QpStanding& before);
  void adapt();
  void polish_once(const Packs& on, const Packs& bound);
  bool primal_certificate(double tolerance, double* y);
  bool dual_certificate(double tolerance, double* x);

  const AdmmProblem& problem_;
  QpVectors vectors_;  // the caller's units
  Packs q_, lower_, upper_;
  Packs x_, z_, y_;
  Packs x_before_, y_before_;  // one step earlier
  Packs x_saved_, y_saved_;    // before polishing
  Packs x_tilde_, z_tilde_, pulled_;
  Packs weights_;
  Packs x_out_, y_out_;
  Packs scratch_;
  SharedFactor factor_;
  SharedFactor polish_factor_;
  double rho_;
  std::size_t iterations_ = 0;
  std::size_t next_adaptation_ = 0;
  double offset_ = 0.0;
  double cost_scale_ = 1.0;
  QpResiduals residuals_;
  QpStanding standing_;
};

}  // namespace sage
