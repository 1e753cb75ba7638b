#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace sage {

/// Threads that stay: the calling one and `threads - 1` workers share a loop in equal, contiguous parts.
///
/// Owns:    its workers, joined by the destructor.
/// Threads: `for_ranges` from any thread; callers take turns.
class ThreadPool {
 public:
  /// @throws ConfigError unless `threads` is 1 to 256.
  explicit ThreadPool(std::size_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  std::size_t threads() const { return workers_.size() + 1; }

  /// Calls `body(begin, end)` once per thread over parts of 0 .. count, and returns when all are done.
  /// Part i always goes to thread i, so that what one loop left in a core's cache is there for the next.
  /// `body` must not throw.
  template <class Body>
  void for_ranges(std::size_t count, const Body& body) {
    run({count, &body, [](const void* context, std::size_t begin, std::size_t end) {
           (*static_cast<const Body*>(context))(begin, end);
         }});
  }

 private:
  struct Loop {
    std::size_t count;
    const void* context;
    void (*call)(const void* context, std::size_t begin, std::size_t end);
  };

  void run(const Loop& loop);
  void run_part(const Loop& loop, std::size_t rank) const;
  void work(std::size_t rank);
  void stop();

  std::mutex turn_;
  std::mutex mutex_;
  std::condition_variable started_;
  std::condition_variable finished_;
  Loop loop_{};
  std::uint64_t round_ = 0;
  std::size_t pending_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

/// `pool->for_ranges`, or the whole loop on this thread when there is no pool.
template <class Body>
void for_ranges(ThreadPool* pool, std::size_t count, const Body& body) {
  if (pool == nullptr) {
    body(std::size_t{0}, count);
  } else {
    pool->for_ranges(count, body);
  }
}

}  // namespace sage
