// ZMTP 3.1 (rfc.zeromq.org/spec/37), the NULL mechanism, as a DEALER: greeting, READY, then frames.
#include <cstring>
#include <string_view>

#include "worldwire/transport.h"

namespace worldwire {
namespace {

constexpr std::size_t kGreetingBytes = 64;
constexpr std::uint8_t kGreeting[kGreetingBytes] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 1, 'N', 'U', 'L', 'L'};
// What is sent first: up to the version. A server of another mechanism cuts the connection as soon as it reads ours,
// often before its own greeting is out; so we say NULL only to one that has said so.
constexpr std::size_t kFirstGreetingBytes = 12;
constexpr std::size_t kMechanismAt = 12, kMechanismBytes = 20;
constexpr std::uint8_t kMore = 1, kLong = 2, kCommand = 4;
constexpr std::size_t kReadBytes = 64 * 1024;       // read ahead; payloads go straight to their target
constexpr std::size_t kMaxHead = 256 * 1024;        // part 0, and commands
constexpr std::size_t kMaxQueuedBytes = 512u << 20;
constexpr std::size_t kMaxPingContext = 16;
constexpr int kReadsPerPoll = 64;                   // then the caller has its turn

std::size_t read_big_endian(const std::uint8_t* bytes, int count) {
  std::size_t value = 0;
  for (int index = 0; index < count; ++index) value = value << 8 | bytes[index];
  return value;
}

class Zmtp final : public Transport {
 public:
  explicit Zmtp(std::unique_ptr<Socket> socket) : socket_(std::move(socket)) {}
  ~Zmtp() override { socket_->close(); }

  Result open(const std::string& address) override {
    std::string host;
    std::uint16_t port = 0;
    const Result parsed = parse_address(address, &host, &port);
    if (parsed != Result::ok) return parsed;
    start_over();
    return socket_->connect(host.c_str(), port);
  }

  Result poll(MessageSink& sink) override {
    if (stage_ == Stage::connecting) {
      const Result progress = socket_->progress();
      if (progress != Result::ok) return progress;
      stage_ = Stage::greeting;
      queue(kGreeting, kFirstGreetingBytes);
    }
    Result result = receive_all(sink);
    if (result == Result::ok) result = flush();
    if (result != Result::ok) return result;
    return stage_ == Stage::ready ? Result::ok : Result::would_block;
  }

  // Looks at nothing that `send` changes: another thread may be in there.
  void wait(int timeout_ms) override { socket_->wait(blocked_, timeout_ms); }

  Result send(Bytes head, Bytes payload) override {
    if (stage_ != Stage::ready) return Result::not_ready;  // libzmq cuts a connection that speaks too early
    if (queued_bytes() + head.size + payload.size > kMaxQueuedBytes) return Result::busy;
    const bool more = payload.data != nullptr;
    queue_frame(more ? kMore : 0, head);
    if (more) queue_frame(0, payload);
    return Result::ok;
  }

  bool accepted() const override { return stage_ != Stage::connecting; }

  std::uint64_t received_bytes() const override { return received_; }

  void close(int linger_ms) override {
    // One wait is enough: what is left then waits for a peer that does not read.
    if (stage_ == Stage::ready && flush() == Result::ok && queued_bytes() > 0) {
      socket_->wait(true, linger_ms);
      flush();
    }
    socket_->close();
  }

  const char* detail() const override { return detail_.c_str(); }

 private:
  enum class Stage : std::uint8_t { connecting, greeting, handshake, ready };
  // What the next bytes of the stream are.
  enum class Want : std::uint8_t { greeting, flags, size, body };
  // Whose the body of the frame at hand is.
  enum class Into : std::uint8_t { command, head, payload, nowhere };

  std::size_t queued_bytes() const { return out_.size() - sent_; }

  void start_over() {
    socket_->close();
    stage_ = Stage::connecting;
    want_ = Want::greeting;
    out_.clear();
    sent_ = begin_ = end_ = body_left_ = part_ = 0;
    read_.resize(kReadBytes);
    detail_.clear();
  }

  Result fail(Result result, const char* detail) {
    detail_ = detail;
    return result;
  }

  // ---------------------------------------------------------------------------------------- sending

  void queue(const std::uint8_t* data, std::size_t size) { out_.insert(out_.end(), data, data + size); }

  void queue_frame(std::uint8_t flags, Bytes body) {
    std::uint8_t header[9];
    const bool is_long = body.size > 255;
    const int size_bytes = is_long ? 8 : 1;
    header[0] = static_cast<std::uint8_t>(flags | (is_long ? kLong : 0));
    for (int index = 0; index < size_bytes; ++index) {
      header[1 + index] = static_cast<std::uint8_t>(std::uint64_t{body.size} >> (8 * (size_bytes - 1 - index)));
    }
    queue(header, static_cast<std::size_t>(1 + size_bytes));
    queue(body.data, body.size);
  }

  void queue_ready() {
    static constexpr char kReady[] = "\5READY\13Socket-Type\0\0\0\6DEALER";
    queue_frame(kCommand, Bytes(reinterpret_cast<const std::uint8_t*>(kReady), sizeof kReady - 1));
  }

  Result flush() {
    blocked_ = false;
    while (sent_ < out_.size()) {
      std::size_t moved = 0;
      const Result result = socket_->send(out_.data() + sent_, out_.size() - sent_, &moved);
      blocked_ = result == Result::would_block;
      if (blocked_) return Result::ok;
      if (result != Result::ok) return fail(Result::closed, "the connection was closed");
      sent_ += moved;
    }
    out_.clear();
    sent_ = 0;
    return Result::ok;
  }

  // ---------------------------------------------------------------------------------------- receiving

  Result receive_all(MessageSink& sink) {
    for (int reads = 0; reads < kReadsPerPoll; ++reads) {
      std::size_t moved = 0;
      const Result result = reads_into_body() ? receive_body(&moved) : receive_ahead(&moved);
      if (result == Result::would_block) return Result::ok;
      if (result != Result::ok) return fail(Result::closed, "the connection was closed");
      received_ += moved;
      const Result parsed = parse(sink);
      if (parsed != Result::ok) return parsed;
    }
    return Result::ok;
  }

  // A long body takes its bytes from the socket itself, not by way of the read-ahead.
  bool reads_into_body() const {
    return want_ == Want::body && body_ != nullptr && begin_ == end_ && body_left_ >= kReadBytes;
  }

  Result receive_body(std::size_t* moved) {
    const Result result = socket_->receive(body_, body_left_, moved);
    body_ += *moved;
    body_left_ -= *moved;
    return result;
  }

  Result receive_ahead(std::size_t* moved) {
    if (begin_ == end_) begin_ = end_ = 0;
    if (begin_ > 0 && end_ == read_.size()) {  // make room behind the unread rest
      std::memmove(read_.data(), read_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    const Result result = socket_->receive(read_.data() + end_, read_.size() - end_, moved);
    end_ += *moved;
    return result;
  }

  std::size_t unread() const { return end_ - begin_; }

  Result parse(MessageSink& sink) {
    bool progress = true;
    while (progress) {
      Result result = Result::ok;
      switch (want_) {
        case Want::greeting: result = parse_greeting(&progress); break;
        case Want::flags: progress = parse_flags(); break;
        case Want::size: result = parse_size(sink, &progress); break;
        case Want::body: result = parse_body(sink, &progress); break;
      }
      if (result != Result::ok) return result;
    }
    return Result::ok;
  }

  Result parse_greeting(bool* progress) {
    *progress = unread() >= kGreetingBytes;
    const std::uint8_t* bytes = read_.data() + begin_;
    if (unread() > 0 && bytes[0] != 0xff) return fail(Result::not_worldwire, "what listens there is no ZeroMQ socket");
    if (!*progress) return Result::ok;
    if (bytes[9] != 0x7f || bytes[10] < 3) return fail(Result::not_worldwire, "what listens there is older than ZMTP 3");
    const char* name = reinterpret_cast<const char*>(bytes + kMechanismAt);
    const std::string mechanism(name, strnlen(name, kMechanismBytes));
    if (mechanism != "NULL") {
      detail_ = "the server wants " + mechanism + ", this connection has no key";
      return Result::wrong_key;
    }
    begin_ += kGreetingBytes;
    queue(kGreeting + kFirstGreetingBytes, kGreetingBytes - kFirstGreetingBytes);
    stage_ = Stage::handshake;
    want_ = Want::flags;
    queue_ready();
    return Result::ok;
  }

  bool parse_flags() {
    if (unread() < 1) return false;
    flags_ = read_[begin_++];
    want_ = Want::size;
    return true;
  }

  Result parse_size(MessageSink& sink, bool* progress) {
    const int bytes = (flags_ & kLong) != 0 ? 8 : 1;
    *progress = unread() >= static_cast<std::size_t>(bytes);
    if (!*progress) return Result::ok;
    if ((flags_ & ~(kMore | kLong | kCommand)) != 0) return fail(Result::not_worldwire, "the server broke ZMTP");
    body_size_ = read_big_endian(read_.data() + begin_, bytes);
    begin_ += static_cast<std::size_t>(bytes);
    want_ = Want::body;
    return choose_target(sink);
  }

  // A payload goes where the sink wants it; what is too large, or a third part, goes nowhere.
  Result choose_target(MessageSink& sink) {
    const bool command = (flags_ & kCommand) != 0;
    if (!command && stage_ != Stage::ready) return fail(Result::not_worldwire, "the server broke ZMTP's handshake");
    if ((command || part_ == 0) && body_size_ > kMaxHead) return fail(Result::bad_message, "a part 0 is too large");
    into_ = command ? Into::command : part_ == 0 ? Into::head : part_ == 1 ? Into::payload : Into::nowhere;
    body_left_ = body_size_;
    body_ = nullptr;
    if (into_ == Into::payload) {
      payload_ = body_size_ > 0 ? sink.payload_target(head_, body_size_) : nullptr;
      body_ = payload_;
    } else if (into_ != Into::nowhere) {
      Buffer& buffer = command ? command_ : head_;
      buffer.resize(body_size_);
      body_ = buffer.data();
    }
    return Result::ok;
  }

  Result parse_body(MessageSink& sink, bool* progress) {
    const std::size_t count = unread() < body_left_ ? unread() : body_left_;
    if (body_ != nullptr && count > 0) {
      std::memcpy(body_, read_.data() + begin_, count);
      body_ += count;
    }
    begin_ += count;
    body_left_ -= count;
    *progress = body_left_ == 0;
    if (!*progress) return Result::ok;
    want_ = Want::flags;
    if (into_ == Into::command) return take_command();
    finish_part(sink);
    return Result::ok;
  }

  void finish_part(MessageSink& sink) {
    ++part_;
    if ((flags_ & kMore) != 0) return;
    const bool filled = part_ == 2 && payload_ != nullptr;
    if (part_ <= 2) sink.on_message(head_, filled ? Bytes(payload_, body_size_) : Bytes());
    part_ = 0;
    payload_ = nullptr;
  }

  Result take_command() {
    const std::size_t name_size = command_.empty() ? 0 : command_[0];
    if (command_.size() < 1 + name_size) return fail(Result::not_worldwire, "the server broke ZMTP");
    const std::string_view name(reinterpret_cast<const char*>(command_.data()) + 1, name_size);
    const Bytes rest(command_.data() + 1 + name_size, command_.size() - 1 - name_size);
    if (name == "READY") {
      stage_ = Stage::ready;
    } else if (name == "ERROR") {
      return fail(Result::not_worldwire, "the server refused the handshake");
    } else if (name == "PING") {
      answer_ping(rest);
    }
    return Result::ok;
  }

  // PING holds a time to live (2 bytes) and a context that the PONG gives back.
  void answer_ping(Bytes rest) {
    if (rest.size < 2 || rest.size - 2 > kMaxPingContext) return;
    std::uint8_t pong[5 + kMaxPingContext] = {4, 'P', 'O', 'N', 'G'};
    std::memcpy(pong + 5, rest.data + 2, rest.size - 2);
    queue_frame(kCommand, Bytes(pong, 5 + rest.size - 2));
  }

  std::unique_ptr<Socket> socket_;
  Stage stage_ = Stage::connecting;
  std::string detail_;

  Buffer out_;
  std::size_t sent_ = 0;
  bool blocked_ = false;  // the socket took no more

  std::uint64_t received_ = 0;
  Buffer read_;
  std::size_t begin_ = 0, end_ = 0;
  Want want_ = Want::greeting;
  std::uint8_t flags_ = 0;
  std::size_t body_size_ = 0, body_left_ = 0;
  std::uint8_t* body_ = nullptr;
  Into into_ = Into::nowhere;
  std::size_t part_ = 0;  // of the message at hand
  Buffer head_, command_;
  std::uint8_t* payload_ = nullptr;
};

}  // namespace

std::unique_ptr<Transport> make_zmtp_transport(std::unique_ptr<Socket> socket) {
  return std::make_unique<Zmtp>(std::move(socket));
}

Result parse_address(const std::string& address, std::string* host, std::uint16_t* port) {
  static constexpr std::string_view kScheme = "tcp://";
  const std::size_t colon = address.rfind(':');
  if (address.compare(0, kScheme.size(), kScheme) != 0 || colon == std::string::npos || colon <= kScheme.size()) {
    return Result::bad_address;
  }
  *host = address.substr(kScheme.size(), colon - kScheme.size());
  if (host->size() > 2 && host->front() == '[' && host->back() == ']') *host = host->substr(1, host->size() - 2);
  unsigned long number = 0;
  const std::string digits = address.substr(colon + 1);
  if (digits.empty() || digits.size() > 5) return Result::bad_address;
  for (const char digit : digits) {
    if (digit < '0' || digit > '9') return Result::bad_address;
    number = number * 10 + static_cast<unsigned long>(digit - '0');
  }
  *port = static_cast<std::uint16_t>(number);
  return number >= 1 && number <= 65535 ? Result::ok : Result::bad_address;
}

}  // namespace worldwire
