// The connection: getting it, keeping it, and saying why there is none.
#include "worldwire/client.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "client_detail.h"

namespace worldwire {
namespace {

constexpr std::int64_t kLoadingPauseNs = 200 * kNsPerMs;  // between two hellos to a server that loads
constexpr std::int64_t kAbsentNs = kNsPerSecond;          // a caller that was away for longer starts no alarm
constexpr int kLingerMs = 300;
constexpr int kLongestWaitMs = 50;                        // so that timers run in time

std::int64_t ns_of(double seconds) { return static_cast<std::int64_t>(seconds * static_cast<double>(kNsPerSecond)); }

}  // namespace

std::int64_t now_ns() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
}

Client::Client(ClientOptions options, Listener* listener) : options_(std::move(options)), listener_(listener) {
  connect();
}

Client::~Client() {
  listener_ = nullptr;
  close();
}

void Client::connect() {
  if (is_open()) return;
  token_.clear();
  retry_pause_ms_ = options_.retry_ms;
  retry_ns_ = 0;
  problem_ = {};
  change(State::waiting);
}

void Client::close() {
  if (is_open()) {
    Bye bye;
    bye.reason = "closed";
    send(bye);
    transport_->close(kLingerMs);
  }
  forget_pending();
  for (const auto& session : sessions_) session->end();
  change(State::idle);
}

// ------------------------------------------------------------------------------------ polling

void Client::poll(int timeout_ms) {
  const std::uint64_t before = heard_bytes_;
  advance();
  if (timeout_ms <= 0 || heard_bytes_ != before) return;
  wait(std::min(timeout_ms, kLongestWaitMs));
  advance();
}

void Client::wait(int timeout_ms) {
  const State state = state_;
  if (state == State::connecting || state == State::loading || state == State::ready) {
    transport_->wait(timeout_ms);
  } else {
    std::this_thread::sleep_for(std::chrono::milliseconds(timeout_ms));
  }
}

void Client::advance() {
  const std::int64_t now = now_ns();
  deliver_late_answers();
  if (state_ == State::waiting && now >= retry_ns_) begin_connecting();
  if (!is_open()) return;
  if (now - polled_ns_ > kAbsentNs) heard_ns_ = now;
  polled_ns_ = now;
  const Result result = transport_->poll(*this);
  if (transport_->received_bytes() != heard_bytes_) {
    heard_bytes_ = transport_->received_bytes();
    heard_ns_ = now;
  }
  if (is_open() && result != Result::ok && result != Result::would_block) lose_transport(result);
  if (is_open()) run_timers(now, result == Result::ok);
  if (!is_open()) transport_->close(0);
}

void Client::begin_connecting() {
  const bool curve = !options_.keys.server_public.empty();
  transport_ = curve ? make_curve_transport(options_.keys) : make_zmtp_transport(options_.make_socket());
  if (transport_ == nullptr) {
    return lose(Result::missing_libzmq, "A server key was given, but this build cannot encrypt.",
                "Build worldwire with WORLDWIRE_WITH_LIBZMQ.", true);
  }
  began_ns_ = heard_ns_ = polled_ns_ = now_ns();
  hello_ns_ = pinged_ns_ = 0;
  heard_bytes_ = 0;
  trip_count_ = 0;
  change(State::connecting);
  const Result result = transport_->open(options_.address);
  if (result != Result::ok) lose_transport(result);
}

void Client::run_timers(std::int64_t now, bool connected) {
  if (!connected) {
    if (now - began_ns_ > options_.connect_timeout_ms * kNsPerMs) lose_time(now);
    return;
  }
  const bool says_hello = state_ == State::loading ? now - hello_ns_ > kLoadingPauseNs : hello_ns_ == 0;
  if (says_hello) say_hello(now);
  if (now - pinged_ns_ > ns_of(server_.limits.heartbeat_s)) {
    pinged_ns_ = now;
    Ping ping;
    ping.t_ns = now_ns();
    send(ping);
  }
  if (now - heard_ns_ > ns_of(server_.limits.liveness_s)) return lose_time(now);
  open_waiting_sessions(now);
  for (const auto& session : sessions_) session->flush_credit(now);
}

void Client::say_hello(std::int64_t now) {
  hello_ns_ = now;
  Hello hello;
  hello.request = hello_request_ = next_request();
  hello.client = options_.name;
  if (!token_.empty()) hello.resume = token_;
  send(hello);
}

void Client::open_waiting_sessions(std::int64_t now) {
  if (state_ != State::ready || reopen_ns_ == 0 || now < reopen_ns_) return;
  reopen_ns_ = 0;
  for (const auto& session : sessions_) {
    const bool asked = std::any_of(pending_.begin(), pending_.end(),
                                   [&](const Pending& item) { return item.session == session.get(); });
    if (session->state_ == SessionState::opening && !asked) session->send_open();
  }
}

// ------------------------------------------------------------------------------------ losing it

void Client::lose_transport(Result cause) {
  const std::string& address = options_.address;
  const std::string detail = transport_->detail();
  switch (cause) {
    case Result::bad_address:
      return lose(cause, "'" + address + "' is no address.", "Write tcp://HOST:PORT.", true);
    case Result::nothing_listens: return lose(cause, "No server at " + address + ".", kStartAgain);
    case Result::unreachable: return lose(cause, "There is no way to " + address + ".", "Look at the host's name.");
    case Result::wrong_key:
      return lose(cause, "The encrypted handshake with " + address + " failed: " + detail + ".",
                  "Give the public key that the server was started with, and none to a server without keys.", true);
    case Result::closed:
      if (state_ == State::ready) return lose(cause, "The server at " + address + " went away.", kStartAgain);
      return lose(cause, "The server at " + address + " closed the connection.", "Look at the server's log.");
    default:
      return lose(cause, "What listens at " + address + " is no worldwire server: " + detail + ".", kStartAgain);
  }
}

// Nothing has come for too long. What is to blame depends on how far the connection was.
void Client::lose_time(std::int64_t now) {
  const std::string seconds = std::to_string((now - std::max(began_ns_, heard_ns_)) / kNsPerSecond);
  if (!transport_->accepted()) {
    lose(Result::unreachable, "No way to " + options_.address + " in " + seconds + " s.", "Look at the network.");
  } else if (hello_ns_ == 0) {
    lose(Result::not_worldwire, "Something listens at " + options_.address + " but does not answer.", kStartAgain);
  } else {
    lose(Result::stalled, "The server at " + options_.address + " has been silent for " + seconds + " s.",
         "Look at the server's log.");
  }
}

void Client::lose(Result cause, std::string text, std::string remedy, bool for_good) {
  problem_ = {cause, std::move(text), std::move(remedy), 0, ""};
  forget_pending();
  for (const auto& session : sessions_) {
    if (session->state_ != SessionState::over) session->state_ = SessionState::opening;
  }
  retry_ns_ = now_ns() + retry_pause_ms_ * kNsPerMs;
  retry_pause_ms_ = std::min(retry_pause_ms_ * 2, options_.longest_retry_ms);
  change(for_good || !options_.reconnect ? State::failed : State::waiting);
}

// Answers what nobody will answer any more. What a session still wishes is asked again later.
void Client::forget_pending() {
  std::vector<Pending> lost;
  lost.swap(pending_);
  for (const Pending& item : lost) {
    Session* session = item.session;
    const bool again = session != nullptr && (item.asked == Asked::open || item.request == session->wish_.reset_request ||
                                              item.request == session->wish_.prompt_request ||
                                              item.request == session->wish_.start_request);
    if (again) continue;
    if (item.asked == Asked::branch) session->end();
    answer_later(item.request, Result::closed, session, "");
  }
}

void Client::change(State state) {
  if (state == state_) return;
  state_ = state;
  if (listener_ != nullptr) listener_->on_state(*this);
}

// ------------------------------------------------------------------------------------ requests

Session* Client::open(const OpenOptions& options) {
  sessions_.push_back(std::unique_ptr<Session>(new Session(*this)));
  Session* session = sessions_.back().get();
  session->wish_.open = options;
  if (state_ == State::ready) session->send_open();
  return session;
}

std::int64_t Client::status() {
  if (!is_open()) return 0;
  StatusRequest message;
  message.request = next_request();
  return ask(Asked::status, nullptr, message);
}

bool Client::take_pending(std::int64_t request, Pending* pending) {
  const auto found = std::find_if(pending_.begin(), pending_.end(),
                                  [&](const Pending& item) { return item.request == request; });
  if (found == pending_.end()) return false;
  *pending = *found;
  pending_.erase(found);
  return true;
}

void Client::answer(const Answer& given) {
  answers_[next_answer_] = given;
  next_answer_ = (next_answer_ + 1) % answers_.size();
  if (listener_ != nullptr) listener_->on_answer(given);
}

void Client::answer_later(std::int64_t request, Result result, Session* session, const char* field) {
  Answer late;
  late.request = request;
  late.result = result;
  late.session = session;
  if (result == Result::bad_argument) late.problem = std::string("the field ") + field + " is out of its range";
  late_.push_back(std::move(late));
}

void Client::deliver_late_answers() {
  std::vector<Answer> late;
  late.swap(late_);
  for (const Answer& item : late) {
    Pending pending;
    take_pending(item.request, &pending);
    answer(item);
  }
}

Answer Client::await(std::int64_t request, int timeout_ms) {
  const std::int64_t deadline = now_ns() + timeout_ms * kNsPerMs;
  Answer none;
  none.request = request;
  none.result = request == 0 ? Result::not_ready : Result::timed_out;
  while (request != 0 && now_ns() < deadline) {
    if (state_ == State::idle || state_ == State::failed) none.result = Result::closed;
    poll(kLongestWaitMs);
    for (const Answer& given : answers_) {
      if (given.request == request) return given;
    }
    if (none.result == Result::closed) break;  // nobody will answer any more
  }
  return none;
}

Result Client::await_ready(int timeout_ms) {
  const std::int64_t deadline = now_ns() + timeout_ms * kNsPerMs;
  while (state_ != State::ready && state_ != State::failed && now_ns() < deadline) poll(kLongestWaitMs);
  if (state_ == State::ready) return Result::ok;
  return problem_.cause != Result::ok ? problem_.cause : Result::timed_out;
}

Result Client::await_open(const Session& session, int timeout_ms) {
  const std::int64_t deadline = now_ns() + timeout_ms * kNsPerMs;
  while (session.state() == SessionState::opening && state_ != State::failed && now_ns() < deadline) {
    poll(kLongestWaitMs);
  }
  if (session.state() == SessionState::over) return Result::refused;
  if (session.state() != SessionState::opening) return Result::ok;
  return problem_.cause != Result::ok ? problem_.cause : Result::timed_out;
}

Session* Client::find(std::int64_t id) {
  for (const auto& session : sessions_) {
    if (id != 0 && session->id_ == id) return session.get();
  }
  return nullptr;
}

void Client::remove(Session* session) {
  for (Pending& item : pending_) {
    if (item.session == session) item.session = nullptr;
  }
  for (Answer& item : late_) {
    if (item.session == session) item.session = nullptr;
  }
  for (Answer& item : answers_) {
    if (item.session == session) item.session = nullptr;
  }
  if (frame_session_ == session) frame_session_ = nullptr;
  sessions_.erase(std::find_if(sessions_.begin(), sessions_.end(),
                               [&](const std::unique_ptr<Session>& item) { return item.get() == session; }));
}

const Client::RoundTrip* Client::best_round_trip() const {
  const std::size_t count = std::min(trip_count_, trips_.size());
  const auto best = std::min_element(trips_.begin(), trips_.begin() + static_cast<std::ptrdiff_t>(count),
                                     [](const RoundTrip& a, const RoundTrip& b) { return a.duration_ns < b.duration_ns; });
  return count == 0 ? nullptr : &*best;
}

double Client::round_trip_ms() const {
  const RoundTrip* best = best_round_trip();
  return best == nullptr ? 0 : to_ms(best->duration_ns);
}

}  // namespace worldwire
