#pragma once

#include <cstdint>
#include <vector>

#include "kernels/qp_problem.h"

namespace sage {

/// An order of the variables in which the factors of P + A'A stay within a thin envelope: reverse
/// Cuthill-McKee. The variables as they come unless both matrices are compressed.
std::vector<std::uint32_t> thin_order(const QpMatrices& matrices);

}  // namespace sage
