#include "core/number_text.h"

#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <string_view>

namespace sage {

namespace {

constexpr int kLeastPlainExponent = -4;
constexpr int kLeastLargeExponent = 16;

void append_exponent(std::string& out, int exponent) {
  out += exponent < 0 ? "e-" : "e+";
  if (std::abs(exponent) < 10) out += '0';
  append_integer(out, std::abs(exponent));
}

}  // namespace

void append_number(std::string& out, double value) {
  char text[32];
  const std::to_chars_result end =
      std::to_chars(text, text + sizeof text, std::fabs(value), std::chars_format::scientific);
  const std::string_view written(text, static_cast<std::size_t>(end.ptr - text));
  const std::size_t mark = written.find('e');
  std::string digits(1, written[0]);
  if (mark > 2) digits += written.substr(2, mark - 2);
  const int exponent = std::atoi(std::string(written.substr(mark + 1)).c_str());

  if (std::signbit(value)) out += '-';
  if (exponent < kLeastPlainExponent || exponent >= kLeastLargeExponent) {
    out += digits[0];
    if (digits.size() > 1) out.append(".").append(digits, 1);
    append_exponent(out, exponent);
  } else if (exponent < 0) {
    out.append("0.").append(static_cast<std::size_t>(-exponent - 1), '0').append(digits);
  } else {
    const auto whole = static_cast<std::size_t>(exponent) + 1;
    if (digits.size() <= whole) digits.append(whole + 1 - digits.size(), '0');
    out.append(digits, 0, whole).append(".").append(digits, whole);
  }
}

void append_finite(std::string& out, double value) {
  if (std::isfinite(value)) {
    append_number(out, value);
  } else {
    out += "null";
  }
}

void append_integer(std::string& out, std::int64_t value) {
  char text[24];
  out.append(text, std::to_chars(text, text + sizeof text, value).ptr);
}

}  // namespace sage
