#include "kernels/grid_way.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <queue>
#include <utility>

namespace sage {

namespace {

constexpr double kClosed = std::numeric_limits<double>::infinity();
constexpr std::size_t kNowhere = std::numeric_limits<std::size_t>::max();

/// The grid with a closed frame around it, so that every cell has eight neighbours.
class Grid {
 public:
  Grid(const double* cost, std::size_t rows, std::size_t columns, std::size_t first, std::size_t last)
      : columns_(columns),
        stride_(columns + 2),
        first_(framed(first)),
        last_(framed(last)),
        price_((rows + 2) * stride_, kClosed),
        best_(price_.size(), kClosed),
        parent_(price_.size(), kNowhere) {
    for (std::size_t row = 0; row < rows; ++row) {
      std::copy_n(cost + row * columns, columns, &price_[(row + 1) * stride_ + 1]);
    }
    price_[first_] = price_[last_] = 1.0;
  }

  std::vector<std::size_t> way() {
    reach(first_, kNowhere, 0.0);
    while (!open_.empty()) {
      const auto [total, cell] = open_.top();
      open_.pop();
      if (cell == last_) return traced();
      if (total <= best_[cell] + ahead(cell)) leave(cell);  // else a better way here was taken meanwhile
    }
    return {};
  }

 private:
  using Open = std::pair<double, std::size_t>;

  std::size_t framed(std::size_t cell) const { return (cell / columns_ + 1) * stride_ + cell % columns_ + 1; }

  /// The length of the shortest way to the goal over an open grid.
  double ahead(std::size_t cell) const {
    const auto apart = [](std::size_t a, std::size_t b) {
      return static_cast<double>(a > b ? a - b : b - a);
    };
    const double across = apart(cell / stride_, last_ / stride_);
    const double along = apart(cell % stride_, last_ % stride_);
    return std::max(across, along) + (std::sqrt(2.0) - 1.0) * std::min(across, along);
  }

  void reach(std::size_t cell, std::size_t from, double cost) {
    if (!(cost < best_[cell])) return;
    best_[cell] = cost;
    parent_[cell] = from;
    open_.emplace(cost + ahead(cell), cell);
  }

  void leave(std::size_t cell) {
    const std::size_t rows[] = {cell - stride_, cell + stride_};
    const std::size_t sides[] = {cell - 1, cell + 1};
    const auto go = [&](std::size_t there, double width) {
      reach(there, cell, best_[cell] + 0.5 * width * (price_[cell] + price_[there]));
    };
    for (const std::size_t row : rows) go(row, 1.0);
    for (const std::size_t side : sides) go(side, 1.0);
    for (const std::size_t row : rows) {
      for (const std::size_t side : sides) {
        if (price_[row] < kClosed && price_[side] < kClosed) go(row + side - cell, std::sqrt(2.0));
      }
    }
  }

  std::vector<std::size_t> traced() const {
    std::vector<std::size_t> cells;
    for (std::size_t cell = last_; cell != kNowhere; cell = parent_[cell]) {
      cells.push_back((cell / stride_ - 1) * columns_ + cell % stride_ - 1);
    }
    std::reverse(cells.begin(), cells.end());
    return cells;
  }

  std::size_t columns_;
  std::size_t stride_;
  std::size_t first_;
  std::size_t last_;
  std::vector<double> price_;
  std::vector<double> best_;
  std::vector<std::size_t> parent_;
  std::priority_queue<Open, std::vector<Open>, std::greater<>> open_;
};

}  // namespace

std::vector<std::size_t> grid_way(const double* cost, std::size_t rows, std::size_t columns,
                                  std::size_t first, std::size_t last) {
  return Grid(cost, rows, columns, first, last).way();
}

}  // namespace sage
