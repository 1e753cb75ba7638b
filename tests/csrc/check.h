#pragma once

#include <cmath>
#include <cstdio>
#include <exception>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

// Enough of a test framework: TEST("a sentence that can be false") { CHECK(...); } and one main per program.
namespace check {

struct Test {
  const char* sentence;
  void (*body)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

struct Registration {
  Registration(const char* sentence, void (*body)()) { tests().push_back({sentence, body}); }
};

inline void require(bool holds, const char* file, int line, const std::string& what) {
  if (!holds) throw std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

template <class A, class B>
void require_equal(const A& actual, const B& expected, const char* file, int line, const char* what) {
  std::ostringstream text;
  text << what << ": got " << actual << ", expected " << expected;
  require(actual == expected, file, line, text.str());
}

}  // namespace check

#define CHECK_NAME_(prefix, line) prefix##line
#define CHECK_NAME(prefix, line) CHECK_NAME_(prefix, line)
#define TEST(sentence)                                                                                       \
  static void CHECK_NAME(test_, __LINE__)();                                                                 \
  static const check::Registration CHECK_NAME(registered_, __LINE__)(sentence, CHECK_NAME(test_, __LINE__)); \
  static void CHECK_NAME(test_, __LINE__)()

#define CHECK(condition) check::require((condition), __FILE__, __LINE__, #condition)
#define CHECK_EQ(actual, expected) check::require_equal((actual), (expected), __FILE__, __LINE__, #actual)
#define CHECK_NEAR(actual, expected, tolerance)                                       \
  check::require(std::fabs((actual) - (expected)) <= (tolerance), __FILE__, __LINE__, \
                 #actual " is near " #expected)
#define CHECK_THROWS(Error, statement)                                        \
  do {                                                                        \
    bool thrown = false;                                                      \
    try {                                                                     \
      statement;                                                              \
    } catch (const Error&) {                                                  \
      thrown = true;                                                          \
    }                                                                         \
    check::require(thrown, __FILE__, __LINE__, #statement " throws " #Error); \
  } while (false)

int main() {
  int failures = 0;
  for (const check::Test& test : check::tests()) {
    try {
      test.body();
      std::printf("ok    %s\n", test.sentence);
    } catch (const std::exception& error) {
      ++failures;
      std::printf("FAIL  %s\n      %s\n", test.sentence, error.what());
    }
  }
  return failures == 0 ? 0 : 1;
}
