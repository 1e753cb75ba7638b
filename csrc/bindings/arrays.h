#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <string>
#include <type_traits>
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

/// What is asked of one axis of an array.
struct Axis {
  pybind11::ssize_t length;
  bool or_more = false;
  const char* what = "";

  bool accepts(pybind11::ssize_t actual) const { return or_more ? actual >= length : actual == length; }
  std::string words() const {
    return (or_more ? ">= " : "") + std::to_string(length) + (*what == '\0' ? "" : " ") + what;
  }
};

inline std::string words_of(const pybind11::object& object) {
  return pybind11::str(object).cast<std::string>();
}

/// @throws ShapeError with what came instead of `expected`.
[[noreturn]] inline void refuse(const char* name, const std::string& expected, const pybind11::array& array) {
  const bool contiguous = (array.flags() & pybind11::array::c_style) != 0;
  throw ShapeError(std::string(name) + ": expected " + expected + ", got " + words_of(array.dtype()) + " " +
                   words_of(array.attr("shape")) + (contiguous ? "" : ", not C-contiguous"));
}

/// Checks dtype, layout and axes; with `more` there may be further ones.
/// @throws ShapeError
template <class T>
void require_array(const Array<T>& array, const char* name, const std::vector<Axis>& axes,
                   bool more = false) {
  const auto count = static_cast<pybind11::ssize_t>(axes.size());
  bool fits = pybind11::array_t<T, pybind11::array::c_style>::check_(array) &&
              (array.ndim() == count || (more && array.ndim() > count));
  for (pybind11::ssize_t axis = 0; fits && axis < count; ++axis) {
    fits = axes[static_cast<std::size_t>(axis)].accepts(array.shape(axis));
  }
  if (fits) return;
  std::string shape;
  for (const Axis& axis : axes) shape += (shape.empty() ? "" : ", ") + axis.words();
  const bool record = std::is_same_v<T, Record>;
  const std::string dtype = record ? "RECORD_DTYPE" : words_of(pybind11::dtype::of<T>());
  refuse(name, "C-contiguous " + dtype + " [" + shape + (more ? ", ...]" : "]"), array);
}

template <class T>
const T* data(const Array<T>& array) {
  return static_cast<const T*>(array.data());
}

/// @throws ConfigError unless `value` is at least 0 (NaN is not).
template <class T>
void require_not_negative(T value, const char* name) {
  if (!(value >= 0))
    throw ConfigError(std::string(name) + ": expected a number >= 0, got " + std::to_string(value));
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
