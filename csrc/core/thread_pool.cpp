#include "core/thread_pool.h"

#include <string>

#include "core/errors.h"

namespace sage {

ThreadPool::ThreadPool(std::size_t threads) {
  if (threads < 1 || threads > 256) {
    throw ConfigError("threads: expected 1 to 256, got " + std::to_string(threads));
  }
  workers_.reserve(threads - 1);
  try {
    for (std::size_t rank = 1; rank < threads; ++rank) workers_.emplace_back([this, rank] { work(rank); });
  } catch (...) {
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  started_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(const Loop& loop) {
  const std::lock_guard<std::mutex> turn(turn_);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    loop_ = loop;
    pending_ = workers_.size();
    ++round_;
  }
  started_.notify_all();
  run_part(loop, 0);
  std::unique_lock<std::mutex> lock(mutex_);
  finished_.wait(lock, [this] { return pending_ == 0; });
}

void ThreadPool::run_part(const Loop& loop, std::size_t rank) const {
  const std::size_t parts = threads();
  loop.call(loop.context, loop.count * rank / parts, loop.count * (rank + 1) / parts);
}

void ThreadPool::work(std::size_t rank) {
  std::uint64_t seen = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    started_.wait(lock, [&] { return stopping_ || round_ != seen; });
    if (stopping_) return;
    seen = round_;
    const Loop loop = loop_;
    lock.unlock();
    run_part(loop, rank);
    lock.lock();
    if (--pending_ == 0) finished_.notify_one();
  }
}

}  // namespace sage
