#include <limits>
#include <string>
#include <utility>

#include "check.h"
#include "core/number_text.h"

namespace {

std::string written(double value) {
  std::string text;
  sage::append_number(text, value);
  return text;
}

}  // namespace

TEST("numbers are written as Python's repr writes them") {
  const std::pair<double, const char*> known[] = {
      {0.0, "0.0"},
      {-0.0, "-0.0"},
      {1.0, "1.0"},
      {-2.5, "-2.5"},
      {0.1, "0.1"},
      {100.0, "100.0"},
      {123456.789, "123456.789"},
      {1e-4, "0.0001"},
      {1e-5, "1e-05"},
      {1.5e-7, "1.5e-07"},
      {1e15, "1000000000000000.0"},
      {9999999999999998.0, "9999999999999998.0"},
      {1e16, "1e+16"},
      {1.25e22, "1.25e+22"},
      {5e-324, "5e-324"},
      {std::numeric_limits<double>::max(), "1.7976931348623157e+308"},
  };
  for (const auto& [value, text] : known) CHECK_EQ(written(value), std::string(text));
}

TEST("the digits of a number give it back to the last bit") {
  double value = 1.0 / 3.0;
  for (int i = 0; i < 600; ++i) {
    CHECK_EQ(std::stod(written(value)), value);
    CHECK_EQ(std::stod(written(1.0 / value)), 1.0 / value);
    value *= 1.7;
  }
}

TEST("what is not finite is null") {
  std::string text;
  for (const double value :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    sage::append_finite(text, value);
  }
  sage::append_integer(text, std::numeric_limits<std::int64_t>::min());
  CHECK_EQ(text, std::string("nullnull-9223372036854775808"));
}
