// One player's walk: requests, inputs, frames and credit.
#include <algorithm>

#include "client_detail.h"
#include "worldwire/client.h"

namespace worldwire {
namespace {

constexpr int kLeadFrames = 4;  // beside one step: the next one begins while they are shown
constexpr std::size_t kSpareSlots = 3;
constexpr std::size_t kMostOverheadBytes = 64 * 1024;  // of a compressed picture over one that is not
constexpr std::int64_t kStallNs = kNsPerSecond;
constexpr std::int64_t kCreditPauseNs = kNsPerMs;  // stays far below the server's limit of messages a second
constexpr std::int64_t kRateNs = kNsPerSecond;

constexpr std::string_view kKeyNames[] = {"forward", "back", "left", "right", "jump", "attack"};

// Keeps the memory of the lists in `control`.
void fill(Control& control, const PlayerInput& input) {
  control.keys.clear();
  for (std::size_t index = 0; index < std::size(kKeyNames); ++index) {
    if ((input.keys >> index & 1u) != 0) control.keys.push_back(kKeyNames[index]);
  }
  control.look_deg = {input.yaw_deg, input.pitch_deg};
  control.position_m.reset();
  control.quaternion_xyzw.reset();
  if (input.pose) {
    control.position_m = input.pose->position_m;
    control.quaternion_xyzw = input.pose->quaternion_xyzw;
  }
}

std::optional<std::string_view> present(const std::string& text) {
  if (text.empty()) return std::nullopt;
  return std::string_view(text);
}

}  // namespace

bool Session::connected() const { return client_.state_ == State::ready && id_ != 0; }

int Session::wanted_window() const { return wish_.window > 0 ? wish_.window : frames_per_step_ + kLeadFrames; }

// ------------------------------------------------------------------------------------ requests

std::int64_t Session::reset(const ResetOptions& options) {
  if (state_ == SessionState::over) return 0;
  if (wish_.reset_request != 0 && !connected()) {
    client_.answer_later(wish_.reset_request, Result::closed, this, "");
  }
  const SeedImage& image = options.pixels;
  const std::size_t bytes = image.rgb == nullptr ? 0 : static_cast<std::size_t>(image.width) * 3u *
                                                           static_cast<std::size_t>(image.height);
  wish_.reset = options;
  wish_.image.assign(image.rgb, image.rgb + bytes);
  wish_.reset.pixels.rgb = wish_.image.data();
  wish_.has_reset = true;
  wish_.prompt.clear();
  const std::int64_t request = wish_.reset_request = client_.next_request();
  if (connected()) send_reset();
  return request;
}

void Session::send_reset() {
  if (wish_.reset_request == 0) wish_.reset_request = client_.next_request();
  const ResetOptions& wish = wish_.reset;
  Reset message;
  message.request = wish_.reset_request;
  message.session = id_;
  message.seed = wish.seed;
  message.view = present(wish.view);
  message.prompt = present(wish.prompt);
  message.image = present(wish.image);
  if (!wish_.image.empty()) {
    message.image_height = wish.pixels.height;
    message.image_width = wish.pixels.width;
  }
  client_.ask(Client::Asked::reset, this, message, wish_.image.empty() ? Bytes() : Bytes(wish_.image));
}

std::int64_t Session::prompt(std::string_view text) {
  if (state_ == SessionState::over) return 0;
  if (wish_.prompt_request != 0 && !connected()) {
    client_.answer_later(wish_.prompt_request, Result::closed, this, "");
  }
  wish_.prompt.assign(text.data(), text.size());
  const std::int64_t request = wish_.prompt_request = client_.next_request();
  if (connected()) send_prompt();
  return request;
}

void Session::send_prompt() {
  if (wish_.prompt_request == 0) wish_.prompt_request = client_.next_request();
  Prompt message;
  message.request = wish_.prompt_request;
  message.session = id_;
  message.prompt = wish_.prompt;
  client_.ask(Client::Asked::prompt, this, message);
}

std::int64_t Session::start(int window) {
  if (state_ == SessionState::over) return 0;
  if (wish_.start_request != 0 && !connected()) {
    client_.answer_later(wish_.start_request, Result::closed, this, "");
  }
  wish_.live = true;
  wish_.window = window;
  const std::int64_t request = wish_.start_request = client_.next_request();
  if (connected()) send_start();
  return request;
}

void Session::send_start() {
  if (wish_.start_request == 0) wish_.start_request = client_.next_request();
  make_room();
  owed_ = 0;  // start makes the credit whole
  last_take_ns_ = now_ns();
  Start message;
  message.request = wish_.start_request;
  message.session = id_;
  message.window = wanted_window();
  client_.ask(Client::Asked::start, this, message);
}

std::int64_t Session::pause() {
  wish_.live = false;
  if (!connected()) return 0;
  Pause message;
  message.request = client_.next_request();
  message.session = id_;
  return client_.ask(Client::Asked::pause, this, message);
}

std::int64_t Session::step(const PlayerInput* inputs, std::size_t count) {
  if (!connected()) return 0;
  make_room();
  Step message;
  message.request = client_.next_request();
  message.session = id_;
  message.inputs.resize(count);
  for (std::size_t index = 0; index < count; ++index) fill(message.inputs[index], inputs[index]);
  return client_.ask(Client::Asked::step, this, message);
}

std::int64_t Session::save() {
  if (!connected()) return 0;
  Save message;
  message.request = client_.next_request();
  message.session = id_;
  return client_.ask(Client::Asked::save, this, message);
}

std::int64_t Session::keep() {
  if (!connected()) return 0;
  Save message;
  message.request = client_.next_request();
  message.session = id_;
  message.keep = true;
  return client_.ask(Client::Asked::save, this, message);
}

std::int64_t Session::restore(Bytes state) {
  if (!connected()) return 0;
  wish_.has_reset = true;  // a server that was started anew cannot restore: it begins as the last reset did
  Restore message;
  message.request = client_.next_request();
  message.session = id_;
  return client_.ask(Client::Asked::restore, this, message, state);
}

std::int64_t Session::restore(std::string_view kept) {
  if (!connected()) return 0;
  wish_.has_reset = true;
  Restore message;
  message.request = client_.next_request();
  message.session = id_;
  message.state = kept;
  return client_.ask(Client::Asked::restore, this, message);
}

Session* Session::branch() {
  if (!connected()) return nullptr;
  client_.sessions_.push_back(std::unique_ptr<Session>(new Session(client_)));
  Session* child = client_.sessions_.back().get();
  child->wish_.open = wish_.open;
  child->wish_.reset = wish_.reset;
  child->wish_.image = wish_.image;
  child->wish_.reset.pixels.rgb = child->wish_.image.data();
  child->wish_.has_reset = true;
  Branch message;
  message.request = client_.next_request();
  message.session = id_;
  client_.ask(Client::Asked::branch, child, message);
  return child;
}

void Session::close() {
  if (connected()) {
    Close message;
    message.request = client_.next_request();
    message.session = id_;
    client_.ask(Client::Asked::close, nullptr, message);
  }
  client_.remove(this);
}

// ------------------------------------------------------------------------------------ states

void Session::send_open() {
  id_ = 0;
  epoch_ = 0;
  state_ = SessionState::opening;
  Open message;
  message.request = client_.next_request();
  message.plan = present(wish_.open.plan);
  message.formats.assign(wish_.open.formats.begin(), wish_.open.formats.end());
  message.jpeg_quality = wish_.open.jpeg_quality;
  client_.ask(Client::Asked::open, this, message);
}

void Session::opened(const Opened& message, bool branched) {
  id_ = message.session;
  format_ = pixel_format(message.format);
  epoch_ = branched ? 1 : 0;
  state_ = branched ? SessionState::ready : SessionState::empty;
  frames_per_step_ = static_cast<int>(std::min<std::int64_t>(message.frames_per_step, kMaxWindowFrames));
  begin(false, wish_.has_reset && !branched);
}

void Session::adopt(const ResumedSession& known) {
  advance(known.epoch);
  format_ = pixel_format(known.format);
  seq_ = std::max(seq_, known.seq);
  frames_per_step_ = static_cast<int>(std::min<std::int64_t>(known.frames_per_step, kMaxWindowFrames));
  state_ = known.epoch > 0 ? SessionState::ready : SessionState::empty;
  begin(true, wish_.has_reset && (wish_.reset_request != 0 || known.epoch == 0));
}

// What was wished while there was no connection, or has to be done again.
void Session::begin(bool resumed, bool wants_reset) {
  clock_.set_rate(client_.server_.frames_per_second);
  make_room();
  if (wants_reset) send_reset();
  if (wish_.prompt_request != 0 || (wants_reset && !wish_.prompt.empty())) send_prompt();
  if (wish_.live) send_start();
  if (client_.listener_ != nullptr) client_.listener_->on_session(*this, resumed);
}

void Session::done(std::int64_t epoch, std::int64_t frames_per_step) {
  advance(epoch);
  frames_per_step_ = static_cast<int>(std::min<std::int64_t>(frames_per_step, kMaxWindowFrames));
  make_room();
}

// A request is answered: it is not to be asked again.
void Session::settle(std::int64_t request) {
  for (std::int64_t* wish : {&wish_.reset_request, &wish_.prompt_request, &wish_.start_request}) {
    if (*wish == request) *wish = 0;
  }
}

void Session::end() {
  state_ = SessionState::over;
  id_ = 0;
  wish_.live = false;
}

void Session::make_room() {
  const auto pixels = static_cast<std::size_t>(client_.server_.width) * static_cast<std::size_t>(client_.server_.height);
  const auto frames = static_cast<std::size_t>(std::max(wanted_window(), frames_per_step_));
  queue_.reserve(frames + kSpareSlots, pixels * static_cast<std::size_t>(bytes_per_pixel(format_)));
}

void Session::advance(std::int64_t epoch) {
  if (epoch <= epoch_) return;
  epoch_ = epoch;
  queue_.clear();
  owed_ = 0;  // a reset makes the credit whole
  if (state_ == SessionState::empty) state_ = SessionState::ready;
}

// ------------------------------------------------------------------------------------ live play

std::int64_t Session::send_input(const PlayerInput& input) {
  if (!connected()) return 0;
  fill(input_, input);
  input_.session = id_;
  input_.seq = seq_ + 1;
  if (!client_.send(input_)) return 0;
  ++seq_;
  sent_ns_[static_cast<std::size_t>(seq_) % kRemembered] = now_ns();
  return seq_;
}

// Where the pixels of a frame go; nullptr for one that nobody wants any more.
std::uint8_t* Session::target(const FrameMessage& message, std::size_t bytes) {
  const PixelFormat format = pixel_format(message.format);
  const auto pixels = static_cast<std::size_t>(message.width * message.height);
  const auto channels = static_cast<std::size_t>(bytes_per_pixel(format));
  const bool fits = channels != 0 ? bytes == pixels * channels : bytes <= pixels * 4 + kMostOverheadBytes;
  if (message.epoch < epoch_ || format == PixelFormat::unknown || !fits) return nullptr;
  advance(message.epoch);
  return queue_.begin(bytes);
}

void Session::arrived(const FrameMessage& message) {
  Frame frame;
  frame.format = pixel_format(message.format);
  frame.width = static_cast<int>(message.width);
  frame.height = static_cast<int>(message.height);
  frame.key = message.key;
  frame.epoch = message.epoch;
  frame.index = message.index;
  frame.ack = message.ack;
  frame.dropped = message.dropped;
  frame.request = message.request.value_or(0);
  frame.t_ns = message.t_ns;
  frame.received_ns = now_ns();
  frame.position_m = message.position_m;
  frame.quaternion_xyzw = message.quaternion_xyzw;
  for (const Timing& timing : message.timings_ms) frame.server_ms += timing.ms;
  frame.memory_count = std::min(message.memory_latents.size(), kShownMemoryLatents);
  std::copy_n(message.memory_latents.begin(), frame.memory_count, frame.memory_latents.begin());
  queue_.commit(frame);
  ++figures_.received;
  figures_.dropped += frame.dropped;
  const std::size_t overruns = queue_.take_overruns();
  figures_.skipped += static_cast<std::int64_t>(overruns);
  give_credit(overruns);
  if (const Client::RoundTrip* trip = client_.best_round_trip()) {
    figures_.transport_ms = std::max(0.0, to_ms(frame.received_ns - (frame.t_ns - trip->offset_ns)));
  }
}

const Frame* Session::take_frame() {
  skip_backlog();
  return took(queue_.take());
}

const Frame* Session::take_due_frame() {
  skip_backlog();
  const std::int64_t now = now_ns();
  if (queue_.waiting() == 0 || !clock_.due(now)) return nullptr;
  clock_.shown(now);
  return took(queue_.take());
}

const Frame* Session::take_newest_frame() {
  last_take_ns_ = 0;  // as if nothing had been taken for long
  return take_frame();
}

// An H.264 stream cannot do without its pictures: whoever decodes must have them all.
void Session::skip_backlog() {
  const std::int64_t now = now_ns();
  if (now - last_take_ns_ > kStallNs && format_ != PixelFormat::h264) {
    const std::size_t skipped = queue_.drop_all_but_newest();
    figures_.skipped += static_cast<std::int64_t>(skipped);
    give_credit(skipped);
  }
  last_take_ns_ = now;
}

const Frame* Session::took(const Frame* frame) {
  if (frame == nullptr) return nullptr;
  const std::int64_t now = last_take_ns_;
  ++figures_.taken;
  ++rate_count_;
  if (now - rate_began_ns_ >= kRateNs) {
    figures_.frames_per_second = static_cast<double>(rate_count_ * kNsPerSecond) / static_cast<double>(now - rate_began_ns_);
    rate_began_ns_ = now;
    rate_count_ = 0;
  }
  note_latency(*frame);
  if (frame->request == 0) give_credit(1);
  return frame;
}

void Session::note_latency(const Frame& frame) {
  if (frame.ack <= shown_seq_) return;
  shown_seq_ = frame.ack;
  const bool known = frame.ack <= seq_ && seq_ - frame.ack < static_cast<std::int64_t>(kRemembered);
  const std::int64_t sent = sent_ns_[static_cast<std::size_t>(frame.ack) % kRemembered];
  if (known && sent != 0) figures_.input_latency_ms = to_ms(last_take_ns_ - sent);
}

void Session::give_credit(std::size_t frames) {
  owed_ += frames;
  flush_credit(now_ns());
}

void Session::flush_credit(std::int64_t now) {
  if (owed_ == 0 || now - credit_ns_ < kCreditPauseNs) return;
  if (state_ == SessionState::live && connected()) {
    Credit credit;
    credit.session = id_;
    credit.frames = static_cast<std::int64_t>(std::min<std::size_t>(owed_, kMaxWindowFrames));
    client_.send(credit);
    credit_ns_ = now;
  }
  owed_ = 0;  // while it is not live there is nothing to give back
}

}  // namespace worldwire
