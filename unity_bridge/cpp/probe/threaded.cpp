// Takes frames from a client that a thread of its own polls; one JSON line.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "probe.h"
#include "worldwire/worldwire.h"

using namespace worldwire;

namespace {

constexpr int kTickMs = 4;  // as the main loop of a game has
constexpr std::int64_t kPatienceNs = 30 * std::int64_t{1000000000};

// Reads all of a picture without the lock: it must not change meanwhile.
std::uint64_t look_at(const Frame& frame) {
  std::uint64_t sum = 0;
  for (std::size_t index = 0; index < frame.size; ++index) sum += frame.pixels[index];
  return sum;
}

}  // namespace

int run_threaded(const Arguments& arguments) {
  ClientOptions options;
  options.address = arguments[0];
  ThreadedClient threaded(std::move(options));
  Session* session = threaded.lock()->open({});
  {
    const auto client = threaded.lock();
    session->reset();
    session->start();
  }
  const std::int64_t wanted = std::atoi(arguments[1].c_str()), deadline = now_ns() + kPatienceNs;
  std::int64_t taken = 0, gaps = 0, last = -1;
  std::uint64_t seen = 0;
  while (taken < wanted && now_ns() < deadline) {
    const Frame* frame = nullptr;
    {
      const auto client = threaded.lock();
      PlayerInput input;
      input.keys = kForward;
      if (taken % 8 == 0) session->send_input(input);
      frame = session->take_frame();
    }
    if (frame == nullptr) {
      std::this_thread::sleep_for(std::chrono::milliseconds(kTickMs));
      continue;
    }
    gaps += last >= 0 && frame->index != last + 1 ? 1 : 0;
    last = frame->index;
    seen += look_at(*frame);
    ++taken;
  }
  std::printf("{\"frames\": %lld, \"gaps\": %lld, \"seen\": %llu}\n", static_cast<long long>(taken),
              static_cast<long long>(gaps), static_cast<unsigned long long>(seen));
  return taken == wanted ? 0 : 1;
}
