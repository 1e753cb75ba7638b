#include "kernels/ordering.h"

#include <algorithm>
#include <numeric>

namespace sage {

namespace {

using Neighbours = std::vector<std::vector<std::uint32_t>>;

/// Who shares an entry of P + A'A with whom, by degree.
Neighbours neighbours(const QpMatrices& matrices) {
  const std::size_t n = matrices.n();
  std::vector<std::uint8_t> joined(n * n);
  std::vector<std::uint32_t> members;
  const auto join = [&](std::uint32_t a, std::uint32_t b) { joined[a * n + b] = joined[b * n + a] = 1; };
  for (std::uint32_t r = 0; r < n; ++r) {
    matrices.P().for_row(r, [&](std::size_t c, double) { join(r, static_cast<std::uint32_t>(c)); });
  }
  for (std::size_t r = 0; r < matrices.m(); ++r) {
    members.clear();
    matrices.A().for_row(r, [&](std::size_t c, double) { members.push_back(static_cast<std::uint32_t>(c)); });
    for (const std::uint32_t a : members) {
      for (const std::uint32_t b : members) join(a, b);
    }
  }
  Neighbours found(n);
  for (std::uint32_t a = 0; a < n; ++a) {
    for (std::uint32_t b = 0; b < n; ++b) {
      if (a != b && joined[a * n + b] != 0) found[a].push_back(b);
    }
  }
  for (auto& of_one : found) {
    std::stable_sort(of_one.begin(), of_one.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return found[a].size() < found[b].size(); });
  }
  return found;
}

/// Appends what is reached from `start`, nearest first.
void walk(const Neighbours& neighbours, std::uint32_t start, std::vector<std::uint8_t>& seen,
          std::vector<std::uint32_t>& order) {
  std::size_t next = order.size();
  seen[start] = 1;
  order.push_back(start);
  for (; next < order.size(); ++next) {
    for (const std::uint32_t to : neighbours[order[next]]) {
      if (seen[to] != 0) continue;
      seen[to] = 1;
      order.push_back(to);
    }
  }
}

}  // namespace

std::vector<std::uint32_t> thin_order(const QpMatrices& matrices) {
  std::vector<std::uint32_t> order(matrices.n());
  std::iota(order.begin(), order.end(), 0U);
  if (!matrices.P().sparse() || !matrices.A().sparse()) return order;

  const Neighbours graph = neighbours(matrices);
  std::vector<std::uint32_t> by_degree = order;
  std::stable_sort(by_degree.begin(), by_degree.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return graph[a].size() < graph[b].size(); });
  order.clear();
  std::vector<std::uint8_t> seen(matrices.n());
  for (const std::uint32_t first : by_degree) {
    if (seen[first] != 0) continue;
    // The last one reached is far out: a better place to begin.
    std::vector<std::uint8_t> trial = seen;
    std::vector<std::uint32_t> reached;
    walk(graph, first, trial, reached);
    walk(graph, reached.back(), seen, order);
  }
  std::reverse(order.begin(), order.end());
  return order;
}

}  // namespace sage
