#include <atomic>
#include <thread>
#include <vector>

#include "check.h"
#include "core/errors.h"
#include "core/ring.h"
#include "core/ring_memory.h"

using sage::Record;
using sage::Ring;
using sage::RingReader;

namespace {

/// A record whose every word follows from its number, so that a torn one shows.
Record numbered(std::uint64_t number) {
  Record record{};
  std::uint64_t words[8];
  for (std::uint64_t i = 0; i < 8; ++i) words[i] = number * 8 + i;
  words[0] = 0;
  std::memcpy(&record, words, sizeof record);
  return record;
}

bool is_numbered(const Record& record) {
  Record expected = numbered(record.seq);
  expected.seq = record.seq;
  return std::memcmp(&record, &expected, sizeof record) == 0;
}

// Enough for a reader and the writer to meet in one slot many times over.
#ifdef SAGE_SANITIZED
constexpr std::uint64_t kRecords = 200'000;
#else
constexpr std::uint64_t kRecords = 4'000'000;
#endif

struct Tally {
  std::uint64_t read = 0;
  std::uint64_t torn = 0;
  std::uint64_t out_of_order = 0;
  std::uint64_t lost = 0;
};

/// Drains until the producer has finished and nothing is left.
Tally drain_all(RingReader& reader, const std::atomic<bool>& finished, std::size_t batch_size,
                int idle_spins) {
  Tally tally;
  std::vector<Record> batch(batch_size);
  std::uint64_t next = 0;
  for (;;) {
    const bool last_round = finished.load();
    const std::size_t count = reader.drain(batch.data(), batch.size());
    for (std::size_t i = 0; i < count; ++i) {
      tally.torn += is_numbered(batch[i]) ? 0U : 1U;
      tally.out_of_order += batch[i].seq < next ? 1U : 0U;
      next = batch[i].seq + 1;
    }
    tally.read += count;
    if (count == 0 && last_round) break;
    for (volatile int spin = 0; spin < idle_spins; spin = spin + 1) {
    }
  }
  tally.lost = reader.lost();
  return tally;
}

void check_stress(std::size_t capacity, std::uint64_t records, int readers, int writer_spins,
                  int reader_spins) {
  Ring ring(capacity);
  std::atomic<bool> finished{false};
  std::vector<Tally> tallies(static_cast<std::size_t>(readers));
  std::vector<std::thread> threads;
  for (Tally& tally : tallies) {
    threads.emplace_back([&ring, &finished, &tally, reader_spins] {
      RingReader reader(ring.span());
      tally = drain_all(reader, finished, 64, reader_spins);
    });
  }
  for (std::uint64_t i = 0; i < records; ++i) {
    ring.writer().push(numbered(i));
    for (volatile int spin = 0; spin < writer_spins; spin = spin + 1) {
    }
  }
  finished = true;
  for (std::thread& thread : threads) thread.join();
  for (const Tally& tally : tallies) {
    CHECK_EQ(tally.torn, 0U);
    CHECK_EQ(tally.out_of_order, 0U);
    CHECK_EQ(tally.read + tally.lost, records);
  }
}

}  // namespace

TEST("records come out once, in order, with their tickets") {
  Ring ring(8);
  RingReader reader(ring.span());
  Record out[8];
  for (std::uint64_t i = 0; i < 5; ++i) ring.writer().push(numbered(i));
  CHECK_EQ(reader.drain(out, 3), 3U);
  CHECK_EQ(reader.drain(out + 3, 8 - 3), 2U);
  for (std::uint64_t i = 0; i < 5; ++i) {
    CHECK_EQ(out[i].seq, i);
    CHECK(is_numbered(out[i]));
  }
  CHECK_EQ(reader.drain(out, 8), 0U);
  CHECK_EQ(reader.lost(), 0U);
}

TEST("a reader overtaken by a producer that then rests still gets the newest records of a whole ring") {
  for (const std::uint64_t capacity : {1U, 2U, 8U, 64U}) {
    for (std::uint64_t extra = 0; extra < 3 * capacity; ++extra) {
      Ring ring(capacity);
      RingReader reader(ring.span());
      const std::uint64_t published = capacity + extra;
      for (std::uint64_t i = 0; i < published; ++i) ring.writer().push(numbered(i));
      std::vector<Record> out(capacity);
      CHECK_EQ(reader.drain(out.data(), out.size()), capacity);
      CHECK_EQ(out.front().seq, extra);
      CHECK_EQ(reader.lost(), extra);
      CHECK_EQ(reader.cursor(), published);
    }
  }
}

TEST("a record that is being written is not there yet") {
  Ring ring(4);
  RingReader reader(ring.span());
  ring.span().slot(0).words[0] = 1;
  Record out;
  CHECK(!reader.ready());
  CHECK_EQ(reader.drain(&out, 1), 0U);
}

TEST("a record that is being overwritten is lost, and the others are not") {
  Ring ring(4);
  RingReader reader(ring.span());
  for (std::uint64_t i = 0; i < 4; ++i) ring.writer().push(numbered(i));
  ring.span().slot(4).words[0] = 2 * 4 + 1;
  Record out[4];
  CHECK(reader.ready());
  CHECK_EQ(reader.drain(out, 4), 3U);
  CHECK_EQ(out[0].seq, 1U);
  CHECK_EQ(reader.lost(), 1U);
}

TEST("a ring's capacity is a power of two") {
  for (const std::size_t capacity : {0U, 3U, 12U}) CHECK_THROWS(sage::ConfigError, Ring{capacity});
}

TEST("a writer faster than its readers: nothing torn, and every loss counted") {
  check_stress(8, kRecords, 2, 0, 20);
  check_stress(64, kRecords, 2, 0, 50);
}

TEST("a writer slower than its readers: nothing torn, and every loss counted") {
  check_stress(256, kRecords / 20, 2, 200, 0);
}

TEST("a ring of one record never shows half of it") { check_stress(1, kRecords, 2, 0, 0); }
