#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <random>

#include "check.h"
#include "core/errors.h"
#include "kernels/admm.h"
#include "kernels/qp_solver.h"

using namespace sage;

namespace {

std::atomic<std::size_t> allocations{0};

}  // namespace

// Counts what the tests below allocate.
void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t align) {
  ++allocations;
  const auto boundary = static_cast<std::size_t>(align);
  if (void* memory = std::aligned_alloc(boundary, (size + boundary - 1) / boundary * boundary)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }

namespace {

/// A feasible QP with n variables, m rows of two limits and a box; its first row is an equality.
struct Problem {
  Problem(unsigned seed, std::size_t n_, std::size_t m_, std::size_t rank) : n(n_), m(m_) {
    std::mt19937 engine(seed);
    std::normal_distribution<double> normal;
    std::vector<double> G(rank * n);
    for (double& value : G) value = normal(engine);
    P.resize(n * n);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        for (std::size_t k = 0; k < rank; ++k) P[i * n + j] += G[k * n + i] * G[k * n + j];
      }
    }
    A.resize(m * n);
    for (double& value : A) value = normal(engine);
    q.resize(n);
    for (double& value : q) value = 5.0 * normal(engine);
    std::vector<double> inside(n);
    for (double& value : inside) value = 0.5 * normal(engine);
    for (std::size_t r = 0; r < m; ++r) {
      double at = 0.0;
      for (std::size_t c = 0; c < n; ++c) at += A[r * n + c] * inside[c];
      l.push_back(r == 0 ? at : at - 0.3);
      u.push_back(r == 0 ? at : at + 0.2);
    }
    for (const double at : inside) {
      lb.push_back(at - 1.0);
      ub.push_back(at + 1.0);
    }
  }

  QpInput input() const { return {q.data(), l.data(), u.data(), lb.data(), ub.data()}; }

  std::size_t n, m;
  std::vector<double> P, A, q, l, u, lb, ub;
};

struct Answer {
  explicit Answer(const Problem& problem) : x(problem.n), y(problem.m + problem.n) {}
  QpOutput output() { return {x.data(), y.data()}; }
  std::vector<double> x, y;
};

double largest_difference(const std::vector<double>& a, const double* b) {
  double largest = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::fabs(a[i] - b[i]));
  return largest;
}

}  // namespace

TEST("ADMM with polishing and the active-set method find the same solution") {
  for (unsigned seed = 0; seed < 20; ++seed) {
    const Problem problem(seed, 3 + seed, 2 * seed + 1, 4 + seed);
    QpSolver solver(problem.P.data(), problem.A.data(), problem.n, problem.m, {});
    Answer answer(problem);
    QpOutput output = answer.output();
    solver.solve(problem.input(), {1e-9, 0.0, 1000}, output);
    CHECK(solver.strictly_convex());
    CHECK(output.status == QpStatus::kSolved);

    AdmmState state = solver.start(problem.input());
    state.advance(500);
    state.polish();
    CHECK(state.residuals().within(1e-6, 0.0));
    CHECK(largest_difference(answer.x, state.x()) < 1e-5);  // the cube root of eps times the condition of P
  }
}

TEST("a QP that is not strictly convex is solved by ADMM") {
  for (unsigned seed = 0; seed < 10; ++seed) {
    const Problem problem(seed, 12, 6, 5);
    QpSolver solver(problem.P.data(), problem.A.data(), problem.n, problem.m, {});
    Answer answer(problem);
    QpOutput output = answer.output();
    solver.solve(problem.input(), {1e-6, 0.0, 4000}, output);
    CHECK(!solver.strictly_convex());
    CHECK(output.status == QpStatus::kSolved);
    CHECK(output.residuals.within(1e-6, 0.0));
  }
}

TEST("the energy of a state falls by orders of magnitude while ADMM runs") {
  const Problem problem(3, 16, 20, 20);
  QpSolver solver(problem.P.data(), problem.A.data(), problem.n, problem.m, {});
  AdmmState state = solver.start(problem.input());
  const double first = state.standing().energy();
  state.advance(200);
  CHECK(state.standing().energy() < first - 3.0);
}

TEST("the exact end of a run is the solution to rounding, strictly convex or not, in any unit of cost") {
  for (const double cost : {1e-8, 1.0, 1e8}) {
    for (const std::size_t rank : {14, 5}) {
      Problem problem(6, 12, 9, rank);
      for (double& value : problem.P) value *= cost;
      for (double& value : problem.q) value *= cost;
      QpSolver solver(problem.P.data(), problem.A.data(), problem.n, problem.m, {});
      AdmmState state = solver.start(problem.input());
      state.advance(20);
      Answer answer(problem);
      CHECK(solver.finish(state, answer.x.data(), answer.y.data()) == QpStatus::kSolved);
      CHECK(state.standing().energy() < -7.0);  // the shift of a P without full rank
    }
  }
}

TEST("a forked state goes on as the first would have, bit for bit, and leaves it alone") {
  const Problem problem(4, 16, 20, 20);
  QpSolver solver(problem.P.data(), problem.A.data(), problem.n, problem.m, {});
  AdmmState first = solver.start(problem.input());
  first.advance(20);
  AdmmState second = first.fork();
  const std::vector<double> before(first.x(), first.x() + problem.n);
  second.advance(40);  // past an adaptation of rho, which needs another factor
  CHECK_EQ(largest_difference(before, first.x()), 0.0);
  first.advance(40);
  CHECK_EQ(std::memcmp(first.x(), second.x(), problem.n * sizeof(double)), 0);
}

TEST("steps allocate nothing, nor does a solve whose limits have been met before") {
  const Problem problem(5, 24, 30, 30);
  QpSolver solver(problem.P.data(), problem.A.data(), problem.n, problem.m, {});
  Answer answer(problem);
  QpOutput output = answer.output();
  solver.solve(problem.input(), {}, output);
  AdmmState state(solver.admm());
  QpVectors vectors(problem.n, problem.m + problem.n);
  load(solver.matrices(), problem.input(), vectors);
  state.start(vectors, nullptr, nullptr);
  state.prepare();
  const std::size_t before = allocations;
  solver.solve(problem.input(), {}, output);
  state.advance(200);
  state.polish();
  CHECK_EQ(allocations.load(), before);
}

TEST("a batch gives each problem the bits that it gets alone, on any number of threads") {
  std::vector<Problem> problems;
  for (unsigned seed = 0; seed < 13; ++seed) {
    problems.emplace_back(7, 10, 12, 12);
    for (double& value : problems.back().q) value += 0.1 * seed;
  }
  const auto solve_all = [&](ThreadPool* pool, bool backwards) {
    QpSolver solver(problems[0].P.data(), problems[0].A.data(), 10, 12, {});
    std::vector<QpInput> inputs;
    std::vector<Answer> answers;
    std::vector<QpOutput> outputs;
    for (std::size_t i = 0; i < problems.size(); ++i) {
      inputs.push_back(problems[backwards ? problems.size() - 1 - i : i].input());
      answers.emplace_back(problems[0]);
    }
    for (Answer& answer : answers) outputs.push_back(answer.output());
    solver.solve_many(inputs.data(), inputs.size(), {}, pool, outputs.data());
    if (backwards) std::reverse(answers.begin(), answers.end());
    return answers;
  };
  ThreadPool pool(3);
  const std::vector<Answer> alone = solve_all(nullptr, false);
  for (const bool backwards : {false, true}) {
    const std::vector<Answer> shared = solve_all(&pool, backwards);
    for (std::size_t i = 0; i < alone.size(); ++i) {
      CHECK(alone[i].x == shared[i].x);
      CHECK(alone[i].y == shared[i].y);
    }
  }
}

TEST("limits that contradict each other give a certificate, with and without a strictly convex P") {
  for (const double curvature : {1.0, 0.0}) {
    const double P[] = {curvature, 0.0, 0.0, curvature};
    const double A[] = {1.0, 1.0, 1.0, 1.0};
    const double q[] = {0.0, 0.0};
    const double l[] = {1.0, -kInfinity};
    const double u[] = {kInfinity, 0.0};
    QpSolver solver(P, A, 2, 2, {});
    double x[2], y[4];
    QpInput input{q};
    input.l = l;
    input.u = u;
    QpOutput output{x, y};
    solver.solve(input, {}, output);
    CHECK(output.status == QpStatus::kPrimalInfeasible);
    CHECK(y[0] < 0.0 && y[1] > 0.0);
    CHECK_NEAR(y[0] + y[1], 0.0, 1e-6);  // A'y = 0
  }
}

TEST("a descent without end gives its direction") {
  const double P[] = {1.0, 0.0, 0.0, 0.0};
  const double q[] = {0.0, 1.0};
  QpSolver solver(P, nullptr, 2, 0, {});
  double x[2], y[2];
  QpOutput output{x, y};
  solver.solve({q}, {}, output);
  CHECK(output.status == QpStatus::kDualInfeasible);
  CHECK(x[1] < 0.0);
  CHECK_NEAR(x[0], 0.0, 1e-6);
}

TEST("what has no meaning is refused") {
  const double indefinite[] = {1.0, 0.0, 0.0, -2.0};
  const double skewed[] = {1.0, 0.5, 0.0, 1.0};
  const double broken[] = {1.0, 0.0, 0.0, std::nan("")};
  const double identity[] = {1.0, 0.0, 0.0, 1.0};
  for (const double* P : {indefinite, skewed, broken})
    CHECK_THROWS(ProblemError, QpSolver(P, nullptr, 2, 0, {}));
  CHECK_THROWS(ConfigError, QpSolver(identity, nullptr, 2, 0, {0.1, 1e-6, 2.0}));
  try {
    QpSolver(indefinite, nullptr, 2, 0, {});
  } catch (const ProblemError& error) {
    CHECK(std::string(error.what()).find("eigenvalue -2") != std::string::npos);
  }
}
