#pragma once

#include <cstddef>
#include <vector>

namespace sage {

/// The cheapest way over a grid from cell to cell, by A* over eight neighbours.
///
/// @param cost [rows, columns], of a cell's width in each cell, at least 1; infinite where the cell is
/// closed.
///     Those of `first` and `last` count as 1. A diagonal step needs both of its sides open.
/// @returns the cells in order, both ends included; empty when there is no way.
std::vector<std::size_t> grid_way(const double* cost, std::size_t rows, std::size_t columns,
                                  std::size_t first, std::size_t last);

}  // namespace sage
