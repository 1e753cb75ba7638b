#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/errors.h"
#include "core/record.h"

// The door for arrays: their types in signatures, and the checks that the core then trusts.
namespace sage::bindings {

/// A NumPy array that promises T in its signature and is held to it by `require_array`, not by a conversion.
template <class T>
class Array : public pybind11::array {
 public:
  using pybind11::array::array;
};

inline std::string describe(const pybind11::array& array) {
  return pybind11::str(array.dtype()).cast<std::string>() + " " +
         pybind11::str(array.attr("shape")).cast<std::string>() +
         ((array.flags() & pybind11::array::c_style) != 0 ? "" : ", not C-contiguous");
}

[[noreturn]] inline void refuse(const char* name, const std::string& expected, const pybind11::array& array) {
  throw ShapeError(std::string(name) + ": expected " + expected + ", got " + describe(array));
}

/// Checks dtype, layout and the first axes (`shape`; -1 takes any length, further axes are free unless `exact`).
/// @throws ShapeError with `expected` in words.
template <class T>
void require_array(const Array<T>& array, const char* name, const std::string& expected,
                   const std::vector<pybind11::ssize_t>& shape, bool exact) {
  const auto axes = static_cast<pybind11::ssize_t>(shape.size());
  bool fits = array.dtype().equal(pybind11::dtype::of<T>()) && (array.flags() & pybind11::array::c_style) != 0 &&
              (exact ? array.ndim() == axes : array.ndim() >= axes);
  for (pybind11::ssize_t axis = 0; fits && axis < axes; ++axis) {
    const pybind11::ssize_t length = shape[static_cast<std::size_t>(axis)];
    fits = length < 0 || array.shape(axis) == length;
  }
  if (!fits) refuse(name, expected, array);
}

/// @throws ConfigError unless `value` is at least 0 (NaN is not).
template <class T>
void require_not_negative(T value, const char* name) {
  if (!(value >= 0)) throw ConfigError(std::string(name) + ": expected a number >= 0, got " + std::to_string(value));
}

}  // namespace sage::bindings

namespace pybind11::detail {

template <>
struct handle_type_name<sage::bindings::Array<float>> {
  static constexpr auto name = const_name("numpy.typing.NDArray[numpy.float32]");
};
template <>
struct handle_type_name<sage::bindings::Array<double>> {
  static constexpr auto name = const_name("numpy.typing.NDArray[numpy.float64]");
};
template <>
struct handle_type_name<sage::bindings::Array<std::uint8_t>> {
  static constexpr auto name = const_name("numpy.typing.NDArray[numpy.uint8]");
};
template <>
struct handle_type_name<sage::bindings::Array<sage::Record>> {
  static constexpr auto name = const_name("numpy.typing.NDArray[numpy.void]");
};

}  // namespace pybind11::detail
