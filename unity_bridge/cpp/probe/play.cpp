// Plays a script against a server: worldwire_probe play ADDR [server-key=KEY] VERB[:ARGUMENT]...
// One JSON line for each verb as soon as it is done, with what came of it; ends with 1 at the first that failed.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "probe.h"
#include "worldwire/worldwire.h"

using namespace worldwire;

namespace {

constexpr int kPatienceMs = 60000;  // a reset on a busy machine
constexpr std::int64_t kPatienceNs = kPatienceMs * std::int64_t{1000000};

std::uint64_t checksum(const Frame& frame) {  // FNV-1a
  std::uint64_t sum = 0xcbf29ce484222325u;
  for (std::size_t index = 0; index < frame.size; ++index) sum = (sum ^ frame.pixels[index]) * 0x100000001b3u;
  return sum;
}

// Counts what the client tells.
class Events final : public Listener {
 public:
  int resumed = 0, reopened = 0, errors = 0;
  void on_session(Session&, bool was_resumed) override { ++(was_resumed ? resumed : reopened); }
  void on_error(const Answer&) override { ++errors; }
};

class Player {
 public:
  explicit Player(ClientOptions options) : client_(std::move(options), &events_) {}

  // Whether it went well; prints its line.
  bool run(const std::string& word) {
    const std::size_t colon = word.find(':');
    verb_ = word.substr(0, colon);
    argument_ = colon == std::string::npos ? "" : word.substr(colon + 1);
    for (const Verb& verb : verbs()) {
      if (verb_ == verb.name) return (this->*verb.run)();
    }
    return report(Result::bad_argument, "");
  }

 private:
  struct Verb {
    const char* name;
    bool (Player::*run)();
  };
  static const std::vector<Verb>& verbs();

  bool report(Result result, const std::string& more) {
    std::printf("{\"verb\": \"%s\", \"result\": \"%s\"%s%s}\n", verb_.c_str(), name_of(result), more.empty() ? "" : ", ",
                more.c_str());
    std::fflush(stdout);
    return result == Result::ok;
  }

  bool await(std::int64_t request) {
    const Answer given = client_.await(request, kPatienceMs);
    answer_ = given;
    if (given.result == Result::ok) return report(Result::ok, "\"epoch\": " + std::to_string(session_->epoch()));
    return report(given.result, "\"code\": \"" + given.code + "\", \"problem\": \"" + given.problem + "\"");
  }

  std::string problem() const {
    const Problem& problem = client_.problem();
    return std::string("\"cause\": \"") + name_of(problem.cause) + "\", \"text\": \"" + problem.text + "\", \"progress\": " +
           std::to_string(problem.progress) + ", \"stage\": \"" + problem.stage + "\"";
  }

  bool ready() {
    const Result result = client_.await_ready(kPatienceMs);
    return report(result, problem() + ", \"world\": \"" + client_.server().world + "\"");
  }
  // The first problem that is told.
  bool cause() {
    const std::int64_t deadline = now_ns() + kPatienceNs;
    while (client_.problem().cause == Result::ok && now_ns() < deadline) client_.poll(10);
    return report(Result::ok, problem());
  }
  bool open() {
    OpenOptions options;
    if (!argument_.empty()) options.formats = {argument_};
    session_ = client_.open(options);
    const Result result = client_.await_open(*session_, kPatienceMs);
    return report(result, "\"format\": \"" + std::string(worldwire::name_of(session_->format())) + "\"");
  }
  // The same in two halves, for a server that has no room at first.
  bool ask() {
    session_ = client_.open({});
    return report(Result::ok, "");
  }
  bool opened() {
    const std::int64_t deadline = now_ns() + kPatienceNs;
    while (session_->state() == SessionState::opening && now_ns() < deadline) client_.poll(10);
    return report(session_->state() == SessionState::empty ? Result::ok : Result::timed_out, problem());
  }
  // Everything asked for at once, before there is a connection.
  bool wish() {
    session_ = client_.open({});
    session_->reset();
    return await(session_->start());
  }
  bool reset() {
    ResetOptions options;
    options.prompt = argument_;
    options.seed = 7;
    return await(session_->reset(options));
  }
  bool bad_image() {
    const std::uint8_t rgb[8 * 8 * 3] = {};
    ResetOptions options;
    options.pixels = {rgb, 8, 8};
    await(session_->reset(options));
    return true;
  }
  bool start() { return await(session_->start(std::atoi(argument_.c_str()))); }
  bool pause() {
    const bool fine = await(session_->pause());
    while (session_->take_frame() != nullptr) continue;
    return fine;
  }
  bool prompt() { return await(session_->prompt(argument_)); }
  bool save() { return await(session_->save()); }
  bool keep() {
    const bool fine = await(session_->keep());
    kept_ = answer_.state;
    return fine;
  }
  bool restore() { return await(session_->restore(Bytes(session_->saved_state()))); }
  bool restore_kept() { return await(session_->restore(std::string_view(kept_))); }
  bool branch() {
    session_ = session_->branch();
    if (session_ == nullptr) return report(Result::not_ready, "");
    return report(client_.await_open(*session_, kPatienceMs), "");
  }
  bool close() {
    session_->close();
    const std::int64_t asked = client_.status();
    const Answer given = client_.await(asked, kPatienceMs);
    return report(given.result, "\"sessions\": " + std::to_string(client_.last_status().sessions));
  }

  bool step() {
    std::vector<PlayerInput> inputs(static_cast<std::size_t>(session_->frames_per_step()));
    for (PlayerInput& input : inputs) input.keys = kForward | kLeft;
    if (client_.await(session_->step(inputs.data(), inputs.size()), kPatienceMs).result != Result::ok) {
      return report(Result::refused, "");
    }
    std::uint64_t sum = 0;
    std::int64_t frames = 0, index = 0;
    while (const Frame* frame = session_->take_frame()) {
      sum = checksum(*frame);
      index = frame->index;
      ++frames;
    }
    return report(Result::ok, "\"frames\": " + std::to_string(frames) + ", \"index\": " + std::to_string(index) +
                                  ", \"checksum\": \"" + std::to_string(sum) + "\"");
  }

  // N frames in their order under an input that changes; how they came.
  bool frames() {
    const std::int64_t wanted = std::atoi(argument_.c_str()), deadline = now_ns() + kPatienceNs;
    std::int64_t taken = 0, gaps = 0, last = -1, first = -1, acked = 0, sent = 0;
    while (taken < wanted && now_ns() < deadline) {
      client_.poll(5);
      const Frame* frame = session_->take_frame();
      if (frame == nullptr) continue;
      if (first < 0) first = frame->index;
      if (last >= 0 && frame->index != last + 1 + frame->dropped) ++gaps;
      last = frame->index;
      acked = frame->ack;
      PlayerInput input;
      input.keys = (taken / 8) % 2 == 0 ? kForward : kForward | kRight;
      input.yaw_deg = 0.5;
      if (taken++ % 4 == 0) sent = session_->send_input(input);
    }
    char more[256];
    std::snprintf(more, sizeof more,
                  "\"frames\": %lld, \"first\": %lld, \"last\": %lld, \"gaps\": %lld, \"ack\": %lld, \"seq\": %lld, "
                  "\"skipped\": %lld, \"input_latency_ms\": %.3f",
                  static_cast<long long>(taken), static_cast<long long>(first), static_cast<long long>(last),
                  static_cast<long long>(gaps), static_cast<long long>(acked), static_cast<long long>(sent),
                  static_cast<long long>(session_->figures().skipped), session_->figures().input_latency_ms);
    return report(taken == wanted ? Result::ok : Result::timed_out, more);
  }

  // Does not look at frames for so many milliseconds; then what comes first.
  bool stall() {
    const std::int64_t until = now_ns() + std::atoi(argument_.c_str()) * std::int64_t{1000000};
    while (now_ns() < until) client_.poll(10);
    const std::size_t waiting = session_->frames_waiting();
    const Frame* frame = session_->take_frame();
    return report(frame != nullptr ? Result::ok : Result::would_block,
                  "\"waiting\": " + std::to_string(waiting) + ", \"left\": " + std::to_string(session_->frames_waiting()));
  }

  // Until the connection is lost; until it is back and its session is live.
  bool lost() {
    const std::int64_t deadline = now_ns() + kPatienceNs;
    while (client_.state() == State::ready && now_ns() < deadline) client_.poll(10);
    return report(client_.state() != State::ready ? Result::ok : Result::timed_out, problem());
  }
  bool back() {
    const std::int64_t deadline = now_ns() + kPatienceNs;
    while (session_->state() != SessionState::live && now_ns() < deadline) client_.poll(10);
    return report(session_->state() == SessionState::live ? Result::ok : Result::timed_out,
                  "\"resumed\": " + std::to_string(events_.resumed) + ", \"opened\": " + std::to_string(events_.reopened));
  }

  Events events_;
  Client client_;
  Session* session_ = nullptr;
  Answer answer_;
  std::string verb_, argument_, kept_;
};

const std::vector<Player::Verb>& Player::verbs() {
  static const std::vector<Verb> all = {
      {"ready", &Player::ready},     {"cause", &Player::cause},     {"open", &Player::open},
      {"ask", &Player::ask},         {"opened", &Player::opened},
      {"wish", &Player::wish},       {"reset", &Player::reset},     {"bad-image", &Player::bad_image},
      {"start", &Player::start},     {"pause", &Player::pause},     {"prompt", &Player::prompt},
      {"save", &Player::save},       {"keep", &Player::keep},       {"restore", &Player::restore},
      {"restore-kept", &Player::restore_kept}, {"branch", &Player::branch}, {"close", &Player::close},
      {"step", &Player::step},       {"frames", &Player::frames},   {"stall", &Player::stall},
      {"lost", &Player::lost},       {"back", &Player::back},
  };
  return all;
}

}  // namespace

int run_play(const Arguments& arguments) {
  ClientOptions options;
  options.address = arguments[0];
  std::size_t next = 1;
  constexpr std::string_view kKey = "server-key=";
  if (arguments[next].compare(0, kKey.size(), kKey) == 0) options.keys.server_public = arguments[next++].substr(kKey.size());
  Player player(std::move(options));
  for (; next < arguments.size(); ++next) {
    if (!player.run(arguments[next])) return 1;
  }
  return 0;
}
