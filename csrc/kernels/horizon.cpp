#include "kernels/horizon.h"

#include <algorithm>

namespace sage {

namespace {

std::vector<double> copy(const double* values, std::size_t count) {
  return std::vector<double>(values, values + count);
}

/// out[rows] += M[rows, columns] v
void add_product(const double* M, const double* v, std::size_t rows, std::size_t columns, double* out) {
  for (std::size_t r = 0; r < rows; ++r) {
    double sum = 0.0;
    for (std::size_t c = 0; c < columns; ++c) sum += M[r * columns + c] * v[c];
    out[r] += sum;
  }
}

/// out[columns] += M[rows, columns]' v
void add_transposed(const double* M, const double* v, std::size_t rows, std::size_t columns, double* out) {
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < columns; ++c) out[c] += M[r * columns + c] * v[r];
  }
}

/// (v - wanted)' M (v - wanted)
double weighed(const double* M, const double* v, const double* wanted, std::size_t size) {
  double sum = 0.0;
  for (std::size_t r = 0; r < size; ++r) {
    double row = 0.0;
    for (std::size_t c = 0; c < size; ++c) row += M[r * size + c] * (v[c] - wanted[c]);
    sum += row * (v[r] - wanted[r]);
  }
  return sum;
}

}  // namespace

Horizon::Horizon(const Parts& p)
    : N_(p.N),
      nx_(p.nx),
      nu_(p.nu),
      A_(copy(p.A, p.nx * p.nx)),
      B_(copy(p.B, p.nx * p.nu)),
      Q_(copy(p.Q, p.nx * p.nx)),
      QN_(copy(p.QN, p.nx * p.nx)),
      R_(copy(p.R, p.nu * p.nu)),
      gain_(copy(p.gain, p.N * p.nu * p.nx)),
      spread_(copy(p.spread, p.N * p.nu * p.nu)),
      settle_(copy(p.settle, p.N * p.nu * p.nu)),
      x_min_(copy(p.x_min, p.nx)),
      x_max_(copy(p.x_max, p.nx)),
      u_min_(copy(p.u_min, p.nu)),
      u_max_(copy(p.u_max, p.nu)) {}

/// Backwards: pull = Q x_ref + (A + B gain)' pull + gain' R u_ref, which is half the linear cost to go,
/// negated.
void Horizon::lead(const double* x_ref, const double* u_ref, double* lead) const {
  std::vector<double> pull(nx_), before(nx_), wanted(nu_), turned(nu_);
  for (std::size_t k = N_; k-- > 0;) {
    add_product(k + 1 == N_ ? QN_.data() : Q_.data(), x_ref + k * nx_, nx_, nx_, pull.data());
    std::fill(wanted.begin(), wanted.end(), 0.0);
    add_product(R_.data(), u_ref + k * nu_, nu_, nu_, wanted.data());
    std::fill(turned.begin(), turned.end(), 0.0);
    add_transposed(B_.data(), pull.data(), nx_, nu_, turned.data());
    for (std::size_t i = 0; i < nu_; ++i) turned[i] += wanted[i];
    std::fill_n(lead + k * nu_, nu_, 0.0);
    add_product(settle_.data() + k * nu_ * nu_, turned.data(), nu_, nu_, lead + k * nu_);
    std::fill(before.begin(), before.end(), 0.0);
    add_transposed(A_.data(), pull.data(), nx_, nx_, before.data());
    add_transposed(gain_.data() + k * nu_ * nx_, turned.data(), nu_, nx_, before.data());
    pull = before;
  }
}

Horizon::Outcome Horizon::play(const double* x0, const double* lead, const double* w, const double* x_ref,
                               const double* u_ref, bool clips, double* x, double* u) const {
  Outcome outcome;
  std::copy_n(x0, nx_, x);
  for (std::size_t k = 0; k < N_; ++k) {
    const double* here = x + k * nx_;
    double* next = x + (k + 1) * nx_;
    double* input = u + k * nu_;
    std::copy_n(lead + k * nu_, nu_, input);
    add_product(gain_.data() + k * nu_ * nx_, here, nu_, nx_, input);
    if (w != nullptr) add_product(spread_.data() + k * nu_ * nu_, w + k * nu_, nu_, nu_, input);
    for (std::size_t i = 0; clips && i < nu_; ++i) input[i] = std::clamp(input[i], u_min_[i], u_max_[i]);
    std::fill_n(next, nx_, 0.0);
    add_product(A_.data(), here, nx_, nx_, next);
    add_product(B_.data(), input, nx_, nu_, next);
    outcome.cost += weighed(R_.data(), input, u_ref + k * nu_, nu_);
    outcome.cost += weighed(k + 1 == N_ ? QN_.data() : Q_.data(), next, x_ref + k * nx_, nx_);
    for (std::size_t i = 0; i < nx_; ++i)
      outcome.excess = std::max({outcome.excess, next[i] - x_max_[i], x_min_[i] - next[i]});
  }
  return outcome;
}

}  // namespace sage
