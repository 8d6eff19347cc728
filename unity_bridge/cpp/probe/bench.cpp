// Frames a second and latency over a real connection; prints one JSON line.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "probe.h"
#include "worldwire/worldwire.h"

using namespace worldwire;

namespace {

constexpr int kPatienceMs = 10000;
constexpr double kWarmUpS = 0.5;
constexpr int kDefaultWindow = 8;
constexpr std::size_t kMostFrames = 1 << 20;

std::int64_t ns(double seconds) { return static_cast<std::int64_t>(seconds * 1e9); }

int fail(const Client& client, const char* what, Result result) {
  std::fprintf(stderr, "%s: %s. %s %s\n", what, name_of(result), client.problem().text.c_str(),
               client.problem().remedy.c_str());
  return 1;
}

// Takes frames until `end_ns`; notes how old each was when all of it had come.
std::int64_t take_until(Client& client, Session& session, std::int64_t end_ns, std::vector<std::int64_t>* ages_ns) {
  std::int64_t frames = 0;
  while (now_ns() < end_ns && client.state() == State::ready) {
    client.poll(1);
    while (const Frame* frame = session.take_frame()) {
      ++frames;
      if (ages_ns != nullptr && ages_ns->size() < kMostFrames) ages_ns->push_back(frame->received_ns - frame->t_ns);
    }
  }
  return frames;
}

double percentile_ms(std::vector<std::int64_t>& sorted, double part) {
  if (sorted.empty()) return 0;
  const auto at = static_cast<std::size_t>(part * static_cast<double>(sorted.size() - 1));
  return static_cast<double>(sorted[at]) / 1e6;
}

}  // namespace

int run_bench(const Arguments& arguments) {
  ClientOptions options;
  options.address = arguments[0];
  Client client(std::move(options));
  Result result = client.await_ready(kPatienceMs);
  if (result != Result::ok) return fail(client, "connect", result);
  OpenOptions open;
  open.formats = {arguments[2]};
  Session* session = client.open(open);
  result = client.await_open(*session, kPatienceMs);
  if (result != Result::ok) return fail(client, "open", result);
  session->reset();
  const std::int64_t started = session->start(arguments.size() > 3 ? std::atoi(arguments[3].c_str()) : kDefaultWindow);
  result = client.await(started, kPatienceMs).result;
  if (result != Result::ok) return fail(client, "start", result);

  std::vector<std::int64_t> ages_ns;
  ages_ns.reserve(kMostFrames);
  take_until(client, *session, now_ns() + ns(kWarmUpS), nullptr);
  const std::int64_t began = now_ns(), allocated = allocations();
  const std::int64_t frames = take_until(client, *session, began + ns(std::atof(arguments[1].c_str())), &ages_ns);
  const std::int64_t allocated_then = allocations() - allocated;
  const double seconds = static_cast<double>(now_ns() - began) / 1e9;
  std::sort(ages_ns.begin(), ages_ns.end());
  std::printf("{\"frames\": %lld, \"seconds\": %.3f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"allocations\": %lld, "
              "\"skipped\": %lld, \"round_trip_ms\": %.3f}\n",
              static_cast<long long>(frames), seconds, percentile_ms(ages_ns, 0.5), percentile_ms(ages_ns, 0.99),
              static_cast<long long>(allocated < 0 ? -1 : allocated_then),
              static_cast<long long>(session->figures().skipped), client.round_trip_ms());
  return 0;
}
