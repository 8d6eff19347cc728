// Checks of parts that need no server. Ends with 1 and says which one failed.
#include <cstdio>
#include <deque>

#include "probe.h"
#include "worldwire/worldwire.h"

using namespace worldwire;

namespace {

int failures = 0;

#define EXPECT(condition)                                                          \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: %s is false\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                                  \
    }                                                                              \
  } while (false)

void put(FrameQueue& queue, std::int64_t index, std::size_t bytes) {
  std::uint8_t* target = queue.begin(bytes);
  if (target == nullptr) return;
  for (std::size_t at = 0; at < bytes; ++at) target[at] = static_cast<std::uint8_t>(index);
  Frame frame;
  frame.index = index;
  queue.commit(frame);
}

// Against a plain list: frames come in order, the oldest makes place, what was taken stays as it was.
void test_queue_never_grows() {
  constexpr std::size_t kSlots = 5, kBytes = 64;
  FrameQueue queue;
  queue.reserve(kSlots, kBytes);
  std::deque<std::int64_t> model;
  const Frame* held = nullptr;
  std::int64_t held_index = 0;
  std::uint32_t dice = 7;
  for (std::int64_t index = 0; index < 2000; ++index) {
    dice = dice * 1664525u + 1013904223u;
    put(queue, index, kBytes);
    model.push_back(index);
    const std::size_t room = kSlots - (held != nullptr ? 1 : 0);
    while (model.size() > room) model.pop_front();
    if (dice >> 30 == 0) {
      held = queue.take();
      EXPECT(held != nullptr && held->index == model.front());
      held_index = model.front();
      model.pop_front();
    }
    EXPECT(queue.waiting() == model.size());
    if (held != nullptr) EXPECT(held->pixels[kBytes - 1] == static_cast<std::uint8_t>(held_index));
  }
  EXPECT(queue.drop_all_but_newest() == model.size() - 1);
  EXPECT(queue.take()->index == 1999);
}

void test_queue_in_lent_memory() {
  std::uint8_t memory[3][16];
  std::uint8_t* const buffers[] = {memory[0], memory[1], memory[2]};
  FrameQueue queue;
  queue.lend(buffers, 3, sizeof memory[0]);
  EXPECT(queue.begin(17) == nullptr);
  for (std::int64_t index = 0; index < 10; ++index) put(queue, index, 16);
  const Frame* frame = queue.take();
  EXPECT(frame->pixels >= memory[0] && frame->pixels < memory[0] + sizeof memory);
  EXPECT(frame->size == 16);
}

void test_clock_plays_evenly_and_never_catches_up() {
  constexpr std::int64_t kPeriod = 100'000'000, kLate = 1'000'000'000;
  FrameClock clock;
  clock.set_rate(10);
  clock.shown(kLate);
  EXPECT(!clock.due(kLate + kPeriod - 1));
  EXPECT(clock.due(kLate + kPeriod));
  clock.shown(kLate + kPeriod + kPeriod / 2);  // half a period late: the next one is on time again
  EXPECT(clock.due(kLate + 2 * kPeriod));
  clock.shown(kLate + 9 * kPeriod);  // far too late: all later ones move
  EXPECT(!clock.due(kLate + 10 * kPeriod - 1));
}

void test_addresses() {
  std::string host;
  std::uint16_t port = 0;
  EXPECT(parse_address("tcp://127.0.0.1:5555", &host, &port) == Result::ok && host == "127.0.0.1" && port == 5555);
  EXPECT(parse_address("tcp://[::1]:1", &host, &port) == Result::ok && host == "::1" && port == 1);
  for (const char* wrong : {"", "tcp://", "tcp://:5", "tcp://a", "tcp://a:", "tcp://a:0", "tcp://a:65536", "udp://a:5", "tcp://a:5x"}) {
    EXPECT(parse_address(wrong, &host, &port) == Result::bad_address);
  }
}

// What is out of range is not sent.
void test_encoder_refuses() {
  Buffer out;
  Fault fault;
  Credit credit;
  credit.session = 1;
  EXPECT(encode(credit, out, &fault) == Result::bad_argument && std::string(fault.where) == "frames");
  Prompt prompt;
  prompt.request = prompt.session = 1;
  const std::string longest(2000, 'x'), longer(2001, 'x');
  prompt.prompt = longest;
  EXPECT(encode(prompt, out) == Result::ok);
  prompt.prompt = longer;
  EXPECT(encode(prompt, out) == Result::bad_argument);
  prompt.prompt = "\xff";
  EXPECT(encode(prompt, out) == Result::bad_argument);
}

}  // namespace

int run_units(const Arguments&) {
  test_queue_never_grows();
  test_queue_in_lent_memory();
  test_clock_plays_evenly_and_never_catches_up();
  test_addresses();
  test_encoder_refuses();
  return failures == 0 ? 0 : 1;
}
