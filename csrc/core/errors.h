#pragma once

#include <stdexcept>

namespace sage {

/// An array has the wrong shape, type or layout.
struct ShapeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A policy, a size or an option that cannot be used.
struct ConfigError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Nothing is free.
struct CapacityError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A problem that has no meaning: not convex, not a number, limits that cross.
struct ProblemError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace sage
