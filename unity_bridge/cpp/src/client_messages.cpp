// What the client does with each message of the server.
#include <algorithm>

#include "client_detail.h"
#include "worldwire/client.h"

namespace worldwire {
namespace {

std::vector<std::string> copies(const Texts& texts) { return {texts.begin(), texts.end()}; }

std::string copy(const std::optional<std::string_view>& text) { return std::string(text.value_or("")); }

Answer answer_of(const ErrorMessage& error) {
  Answer answer;
  answer.request = error.request.value_or(0);
  answer.result = error.code == "busy" ? Result::busy : Result::refused;
  answer.code = error.code;
  answer.problem = error.problem;
  answer.expected = copy(error.expected);
  answer.got = copy(error.got);
  answer.remedy = copy(error.remedy);
  return answer;
}

std::string version_text(const std::array<std::int64_t, 2>& version) {
  return std::to_string(version[0]) + "." + std::to_string(version[1]);
}

}  // namespace

std::uint8_t* Client::payload_target(Bytes head, std::size_t size) {
  std::string_view type;
  frame_session_ = nullptr;
  if (!is_open() || size > options_.most_payload_bytes || !type_of(head, &type)) return nullptr;
  if (type == Saved::kType) {
    Saved saved;
    Session* session = decode(head, saved) == Result::ok ? find(saved.session) : nullptr;
    if (session == nullptr) return nullptr;
    session->saved_.resize(size);
    return session->saved_.data();
  }
  if (type != FrameMessage::kType || decode(head, frame_) != Result::ok) return nullptr;
  frame_session_ = find(frame_.session);
  std::uint8_t* target = frame_session_ != nullptr ? frame_session_->target(frame_, size) : nullptr;
  if (target == nullptr) frame_session_ = nullptr;
  return target;
}

void Client::on_message(Bytes head, Bytes payload) {
  std::string_view type;
  if (!is_open()) return;
  if (!type_of(head, &type)) {
    ++unreadable_;
  } else if (type == FrameMessage::kType) {
    on_frame(payload);
  } else if (type == Pong::kType) {
    on_pong(head);
  } else if (type == Done::kType) {
    on_done(head);
  } else if (type == Welcome::kType) {
    on_welcome(head);
  } else if (type == StatusReport::kType) {
    on_status(head);
  } else if (type == Opened::kType) {
    on_opened(head);
  } else if (type == Saved::kType) {
    on_saved(head);
  } else if (type == ErrorMessage::kType) {
    on_error(head);
  } else if (type == Bye::kType) {
    on_bye(head);
  } else {
    ++unreadable_;
  }
}

// `payload_target` has read the message already, and found a session that wants it.
void Client::on_frame(Bytes payload) {
  if (frame_session_ != nullptr && !payload.empty()) frame_session_->arrived(frame_);
  frame_session_ = nullptr;
}

void Client::on_pong(Bytes head) {
  Pong pong;
  if (decode(head, pong) != Result::ok) {
    ++unreadable_;
    return;
  }
  const std::int64_t now = now_ns();
  if (pong.t_ns > now) return;
  trips_[trip_count_ % trips_.size()] = {now - pong.t_ns, pong.server_t_ns - (pong.t_ns + (now - pong.t_ns) / 2)};
  ++trip_count_;
}

// ------------------------------------------------------------------------------------ greeting

void Client::on_welcome(Bytes head) {
  Welcome welcome;
  std::array<std::int64_t, 2> version = {0, 0};
  if (version_of(head, &version) && !version_fits(version)) {
    return lose(Result::version_mismatch,
                "The server speaks protocol " + version_text(version) + ", this client " + version_text(kVersion) + ".",
                "Install the same release of worldwire on both sides.", true);
  }
  if (decode(head, welcome) != Result::ok || welcome.request != hello_request_) {
    ++unreadable_;
    return;
  }
  token_ = welcome.token;
  copy_server_info(welcome);
  problem_ = {};
  retry_pause_ms_ = options_.retry_ms;
  pinged_ns_ = 0;  // at once: the latency of the first frames wants it
  reopen_ns_ = 0;
  change(State::ready);
  revive_sessions(welcome);
}

void Client::copy_server_info(const Welcome& welcome) {
  const WorldFields& world = welcome.world;
  server_.server = welcome.server;
  server_.world = world.name;
  server_.version = welcome.version;
  server_.width = static_cast<int>(world.width);
  server_.height = static_cast<int>(world.height);
  server_.frames_per_second = world.frames_per_second;
  server_.frames_per_step = static_cast<int>(std::min<std::int64_t>(world.frames_per_step, kMaxWindowFrames));
  server_.horizontal_fov_deg = world.horizontal_fov_deg;
  server_.trained_keys = copies(world.trained_keys);
  server_.views = copies(world.views);
  server_.seed_images = copies(world.seed_images);
  server_.formats = copies(welcome.formats);
  server_.limits = welcome.limits;
}

// Sessions that outlived the connection go on, others are opened (again); what nobody here knows is closed.
void Client::revive_sessions(const Welcome& welcome) {
  for (const ResumedSession& known : welcome.resumed) {
    if (find(known.session) != nullptr) continue;
    Close close;
    close.request = next_request();
    close.session = known.session;
    ask(Asked::close, nullptr, close);
  }
  for (std::size_t index = 0; index < sessions_.size(); ++index) {  // listeners may open more
    Session& session = *sessions_[index];
    const auto known = std::find_if(welcome.resumed.begin(), welcome.resumed.end(), [&](const ResumedSession& item) {
      return session.id_ != 0 && item.session == session.id_;
    });
    if (session.state_ == SessionState::over) continue;
    if (known != welcome.resumed.end()) {
      session.adopt(*known);
    } else {
      session.send_open();
    }
  }
}

void Client::on_status(Bytes head) {
  StatusReport report;
  if (decode(head, report) != Result::ok) {
    ++unreadable_;
    return;
  }
  status_ = {std::string(report.state), static_cast<int>(report.sessions), static_cast<int>(report.max_sessions),
             static_cast<int>(report.queue), report.uptime_s, report.peak_memory_gib};
  if (report.request == hello_request_) {  // not a welcome: say it again in a while
    problem_ = {Result::loading, "The server at " + options_.address + " is loading its world.", "Wait.",
                report.progress.value_or(0), copy(report.stage)};
    change(State::loading);
  }
  Pending pending;
  if (!take_pending(report.request, &pending)) return;
  Answer given;
  given.request = report.request;
  answer(given);
}

void Client::on_bye(Bytes head) {
  Bye bye;
  if (decode(head, bye) != Result::ok) {
    ++unreadable_;
    return;
  }
  if (!bye.resume) token_.clear();  // somebody else may have taken the sessions over: leave them
  lose(Result::closed, "The server said goodbye: " + std::string(bye.reason) + ".", kStartAgain);
}

// ------------------------------------------------------------------------------------ answers

void Client::on_opened(Bytes head) {
  Opened opened;
  Pending pending;
  if (decode(head, opened) != Result::ok) {
    ++unreadable_;
    return;
  }
  if (!take_pending(opened.request, &pending) || pending.session == nullptr) {  // closed before it was open
    Close close;
    close.request = next_request();
    close.session = opened.session;
    ask(Asked::close, nullptr, close);
    return;
  }
  if (problem_.cause == Result::busy) problem_ = {};
  pending.session->opened(opened, pending.asked == Asked::branch);
  Answer given;
  given.request = opened.request;
  given.session = pending.session;
  answer(given);
}

void Client::on_done(Bytes head) {
  Done done;
  Pending pending;
  if (decode(head, done) != Result::ok) {
    ++unreadable_;
    return;
  }
  if (!take_pending(done.request, &pending)) return;
  Session* session = pending.session;
  if (session != nullptr) {
    session->done(done.epoch, done.frames_per_step);
    session->settle(done.request);
    if (pending.asked == Asked::start) session->state_ = SessionState::live;
    if (pending.asked == Asked::pause && session->epoch_ > 0) session->state_ = SessionState::ready;
  }
  Answer given;
  given.request = done.request;
  given.session = session;
  answer(given);
}

void Client::on_saved(Bytes head) {
  Saved saved;
  Pending pending;
  if (decode(head, saved) != Result::ok) {
    ++unreadable_;
    return;
  }
  if (!take_pending(saved.request, &pending)) return;
  Answer given;
  given.request = saved.request;
  given.session = pending.session;
  given.state = copy(saved.state);
  answer(given);
}

void Client::on_error(Bytes head) {
  ErrorMessage error;
  Pending pending;
  if (decode(head, error) != Result::ok) {
    ++unreadable_;
    return;
  }
  if (error.request == hello_request_ && state_ != State::ready) return refused_hello(error);
  if (take_pending(error.request.value_or(0), &pending)) return refused_request(error, pending);
  Answer given = answer_of(error);
  given.session = find(error.session.value_or(0));
  if (error.fatal && given.session != nullptr) given.session->end();
  if (error.fatal && !error.session) return lose(Result::refused, given.problem, given.remedy);
  if (listener_ != nullptr) listener_->on_error(given);
}

void Client::refused_hello(const ErrorMessage& error) {
  const Answer given = answer_of(error);
  if (given.code != "version_mismatch") return lose(given.result, given.problem, given.remedy);
  lose(Result::version_mismatch,
       "The server speaks protocol " + given.expected + ", this client " + version_text(kVersion) + ".",
       given.remedy.empty() ? "Install the same release of worldwire on both sides." : given.remedy, true);
}

void Client::refused_request(const ErrorMessage& error, const Pending& pending) {
  Answer given = answer_of(error);
  Session* session = given.session = pending.session;
  const bool waits = pending.asked == Asked::open && given.result == Result::busy && session != nullptr;
  if (waits) {
    problem_ = {Result::busy, "The server at " + options_.address + " has no room: " + given.problem + ".",
                given.remedy, 0, ""};
    reopen_ns_ = now_ns() + kBusyPauseNs;
  } else if (session != nullptr) {
    session->settle(given.request);
    if (pending.asked == Asked::start) session->wish_.live = false;
    const bool never_was = pending.asked == Asked::open || pending.asked == Asked::branch;
    if (error.fatal || never_was) session->end();
  }
  answer(given);
}

}  // namespace worldwire
