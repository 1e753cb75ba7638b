#pragma once

#include <cstdint>
#include <string>

namespace sage {

/// Appends a finite number as Python's `repr` writes it: the shortest digits that give it back, with `.0`
/// where it is whole, and with an exponent below 1e-4 and from 1e16 on. The canonical form of a record
/// demands it.
void append_number(std::string& out, double value);

/// Appends a number, or `null` where it is not finite.
void append_finite(std::string& out, double value);

void append_integer(std::string& out, std::int64_t value);

}  // namespace sage
