#include <cstdint>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/module.h"
#include "kernels/grid_way.h"

namespace py = pybind11;

namespace sage::bindings {

namespace {

using Cell = std::pair<py::ssize_t, py::ssize_t>;

py::array_t<std::int64_t> way(const Array<double>& cost, const Cell& first, const Cell& last) {
  require_array(cost, "cost", {{1, true}, {1, true}});
  const py::ssize_t rows = cost.shape(0), columns = cost.shape(1);
  for (const Cell& cell : {first, last}) {
    if (cell.first < 0 || cell.first >= rows || cell.second < 0 || cell.second >= columns) {
      throw ShapeError("grid_way: expected cells within " + words_of(cost.attr("shape")));
    }
  }
  const auto size = [](py::ssize_t count) { return static_cast<std::size_t>(count); };
  const auto flat = [&](const Cell& cell) { return size(cell.first * columns + cell.second); };
  std::vector<std::size_t> cells;
  {
    const py::gil_scoped_release release;
    cells = grid_way(data(cost), size(rows), size(columns), flat(first), flat(last));
  }
  py::array_t<std::int64_t> found({static_cast<py::ssize_t>(cells.size()), py::ssize_t{2}});
  std::int64_t* out = found.mutable_data();
  for (const std::size_t cell : cells) {
    *out++ = static_cast<std::int64_t>(cell / size(columns));
    *out++ = static_cast<std::int64_t>(cell % size(columns));
  }
  return found;
}

}  // namespace

void bind_grid_way(py::module_& module) {
  module.def("grid_way", &way, py::arg("cost"), py::arg("first"), py::arg("last"),
             R"(The cheapest way over a grid, by A* over eight neighbours, without the GIL.

Args:
    cost: float64 [rows, columns]: of a cell's width in each cell, at least 1; infinite where the cell is closed.
    first: Row and column of the cell to begin in; its cost counts as 1.
    last: Those of the cell to end in, likewise.

Returns:
    int64 [cells, 2], row and column of each in order, both ends included; empty when there is no way. A diagonal step
    needs both of its sides open.

Raises:
    ShapeError: `cost` has the wrong shape, dtype or layout, or a cell is outside of it.)");
}

}  // namespace sage::bindings
