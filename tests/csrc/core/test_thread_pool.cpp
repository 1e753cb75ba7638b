#include <thread>
#include <vector>

#include "check.h"
#include "core/errors.h"
#include "core/thread_pool.h"

using sage::ThreadPool;

TEST("every index is visited once, whatever the threads and the count") {
  for (const std::size_t threads : {1U, 2U, 3U, 7U}) {
    ThreadPool pool(threads);
    for (const std::size_t count : {0U, 1U, 2U, 5U, 1000U}) {
      std::vector<int> visits(count, 0);
      pool.for_ranges(count, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) ++visits[i];
      });
      for (const int visit : visits) CHECK_EQ(visit, 1);
    }
  }
}

TEST("without a pool the caller does the whole loop") {
  std::size_t seen = 0;
  sage::for_ranges(nullptr, 9, [&](std::size_t begin, std::size_t end) { seen += end - begin; });
  CHECK_EQ(seen, 9U);
}

TEST("callers from several threads take turns") {
  ThreadPool pool(2);
  std::vector<std::size_t> sums(3, 0);
  std::vector<std::thread> callers;
  for (std::size_t& sum : sums) {
    callers.emplace_back([&pool, &sum] {
      for (int round = 0; round < 200; ++round) {
        std::size_t parts[2] = {0, 0};
        pool.for_ranges(100,
                        [&](std::size_t begin, std::size_t end) { parts[begin == 0 ? 0 : 1] = end - begin; });
        sum += parts[0] + parts[1];
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const std::size_t sum : sums) CHECK_EQ(sum, 20000U);
}

TEST("a pool of no threads, or of thousands, is refused") {
  CHECK_THROWS(sage::ConfigError, ThreadPool(0));
  CHECK_THROWS(sage::ConfigError, ThreadPool(257));
}
