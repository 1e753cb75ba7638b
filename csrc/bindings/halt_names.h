#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <optional>
#include <string>

#include "core/errors.h"
#include "core/record.h"

namespace sage::bindings {

/// The wire name of a reason; none while running.
inline std::optional<std::string> wire_name(HaltReason reason) {
  const char* name = kHaltReasonNames[static_cast<std::size_t>(reason)];
  return name == nullptr ? std::nullopt : std::optional<std::string>(name);
}

/// @throws ConfigError for a name that is not a halt reason.
inline HaltReason parse_reason(const std::string& name) {
  for (std::size_t code = 1; code < std::size(kHaltReasonNames); ++code) {
    if (name == kHaltReasonNames[code]) return static_cast<HaltReason>(code);
  }
  throw ConfigError("halt reason: expected one of HALT_REASONS, got '" + name + "'");
}

/// @throws ConfigError for a number that is not the code of a halt reason; 0 stands for "still running".
inline HaltReason parse_code(std::int64_t code) {
  if (code >= 0 && code < std::int64_t{std::size(kHaltReasonNames)}) return static_cast<HaltReason>(code);
  throw ConfigError("halt: expected 0 or the code of one of HALT_REASONS, got " + std::to_string(code));
}

}  // namespace sage::bindings
