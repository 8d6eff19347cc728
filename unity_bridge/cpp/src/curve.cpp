// CURVE: the cryptography, and with it the whole transport, is libzmq's.
#include "worldwire/transport.h"

#ifndef WORLDWIRE_WITH_LIBZMQ

namespace worldwire {

std::unique_ptr<Transport> make_curve_transport(const CurveKeys&) { return nullptr; }

}  // namespace worldwire

#else

#include <zmq.h>

#include <cstring>
#include <vector>

namespace worldwire {
namespace {

constexpr std::size_t kKeyCharacters = 40;
constexpr const char* kMonitorAddress = "inproc://worldwire-monitor";
constexpr int kMonitored = ZMQ_EVENT_CONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CONNECT_RETRIED |
                           ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                           ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL;
constexpr std::size_t kMaxOutboxBytes = 512u << 20;
constexpr int kMessagesPerPoll = 64;

// A zmq_msg_t that closes itself.
class Part {
 public:
  Part() { zmq_msg_init(&message_); }
  ~Part() { zmq_msg_close(&message_); }
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;

  bool receive(void* socket) { return zmq_msg_recv(&message_, socket, ZMQ_DONTWAIT) >= 0; }
  Bytes bytes() { return {static_cast<const std::uint8_t*>(zmq_msg_data(&message_)), zmq_msg_size(&message_)}; }
  bool more() const { return zmq_msg_more(&message_) != 0; }

 private:
  zmq_msg_t message_;
};

class Curve final : public Transport {
 public:
  explicit Curve(const CurveKeys& keys) : keys_(keys) {}
  ~Curve() override { release(0); }

  Result open(const std::string& address) override {
    std::string host;
    std::uint16_t port = 0;
    const Result parsed = parse_address(address, &host, &port);
    if (parsed != Result::ok) return parsed;
    release(0);
    context_ = zmq_ctx_new();
    socket_ = zmq_socket(context_, ZMQ_DEALER);
    set(ZMQ_RECONNECT_IVL, -1);  // the client tries again by itself, and says so
    if (!set_keys()) return Result::wrong_key;
    zmq_socket_monitor(socket_, kMonitorAddress, kMonitored);
    monitor_ = zmq_socket(context_, ZMQ_PAIR);
    zmq_connect(monitor_, kMonitorAddress);
    return zmq_connect(socket_, address.c_str()) == 0 ? Result::ok : Result::unreachable;
  }

  Result poll(MessageSink& sink) override {
    Result result = watch();
    if (result != Result::ok) return result;
    if (!ready_) return Result::would_block;
    for (int count = 0; count < kMessagesPerPoll && receive(sink); ++count) continue;
    flush();
    return Result::ok;
  }

  void wait(int timeout_ms) override {
    zmq_pollitem_t items[2] = {{socket_, 0, ZMQ_POLLIN, 0}, {monitor_, 0, ZMQ_POLLIN, 0}};
    zmq_poll(items, 2, timeout_ms);
  }

  // libzmq's sockets belong to one thread: `poll` sends what other threads queue here.
  Result send(Bytes head, Bytes payload) override {
    if (!ready_) return Result::not_ready;
    if (queued_ + head.size + payload.size > kMaxOutboxBytes) return Result::busy;
    queued_ += head.size + payload.size;
    const bool more = payload.data != nullptr;
    parts_.push_back({Buffer(head.data, head.data + head.size), more});
    if (more) parts_.push_back({Buffer(payload.data, payload.data + payload.size), false});
    return Result::ok;
  }

  bool accepted() const override { return accepted_; }
  std::uint64_t received_bytes() const override { return received_; }
  const char* detail() const override { return detail_.c_str(); }

  void close(int linger_ms) override {
    if (ready_) flush();
    release(linger_ms);
  }

 private:
  struct Queued {
    Buffer bytes;
    bool more;
  };

  void set(int option, int value) { zmq_setsockopt(socket_, option, &value, sizeof value); }

  bool set_key(int option, const std::string& key) {
    const bool fits = key.size() == kKeyCharacters && zmq_setsockopt(socket_, option, key.c_str(), key.size() + 1) == 0;
    if (!fits) detail_ = "'" + key + "' is no key of 40 characters of Z85";
    return fits;
  }

  bool set_keys() {
    char fresh_public[kKeyCharacters + 1] = {}, fresh_secret[kKeyCharacters + 1] = {};
    if (keys_.client_secret.empty()) {
      zmq_curve_keypair(fresh_public, fresh_secret);
      keys_.client_public = fresh_public;
      keys_.client_secret = fresh_secret;
    }
    return set_key(ZMQ_CURVE_SERVERKEY, keys_.server_public) && set_key(ZMQ_CURVE_PUBLICKEY, keys_.client_public) &&
           set_key(ZMQ_CURVE_SECRETKEY, keys_.client_secret);
  }

  // Only the monitor tells that a handshake failed: libzmq takes messages for a connection that never comes.
  Result watch() {
    Part event, endpoint;
    while (monitor_ != nullptr && event.receive(monitor_)) {
      endpoint.receive(monitor_);
      std::uint16_t kind = 0;
      std::uint32_t value = 0;
      const Bytes bytes = event.bytes();
      if (bytes.size < sizeof kind + sizeof value) continue;
      std::memcpy(&kind, bytes.data, sizeof kind);
      std::memcpy(&value, bytes.data + sizeof kind, sizeof value);
      const Result result = on_event(kind, value);
      if (result != Result::ok) return result;
    }
    return Result::ok;
  }

  Result on_event(std::uint16_t kind, std::uint32_t value) {
    switch (kind) {
      case ZMQ_EVENT_CONNECTED: accepted_ = true; return Result::ok;
      case ZMQ_EVENT_HANDSHAKE_SUCCEEDED: ready_ = true; return Result::ok;
      case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH: return wrong_key("the server does not take this client's key");
      case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        return wrong_key(value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH ? "the server has no key"
                                                                             : "the server's key is another one");
      default: break;
    }
    if (!accepted_) return Result::nothing_listens;
    if (!ready_) return wrong_key("the server's key is another one, or it is no worldwire server");
    detail_ = "the connection was closed";
    return Result::closed;
  }

  Result wrong_key(const char* detail) {
    detail_ = detail;
    return Result::wrong_key;
  }

  bool receive(MessageSink& sink) {
    Part head, payload, rest;
    if (!head.receive(socket_)) return false;
    bool more = head.more();
    std::uint8_t* target = nullptr;
    if (more) {
      payload.receive(socket_);
      more = payload.more();
      const Bytes bytes = payload.bytes();
      target = bytes.empty() ? nullptr : sink.payload_target(head.bytes(), bytes.size);
      if (target != nullptr) std::memcpy(target, bytes.data, bytes.size);
    }
    received_ += head.bytes().size + payload.bytes().size;
    const bool too_many = more;
    while (more && rest.receive(socket_)) more = rest.more();
    if (!too_many) sink.on_message(head.bytes(), target != nullptr ? Bytes(target, payload.bytes().size) : Bytes());
    return true;
  }

  void flush() {
    std::size_t sent = 0;
    for (; sent < parts_.size(); ++sent) {
      const Queued& part = parts_[sent];
      const int flags = ZMQ_DONTWAIT | (part.more ? ZMQ_SNDMORE : 0);
      if (zmq_send(socket_, part.bytes.data(), part.bytes.size(), flags) < 0) break;
      queued_ -= part.bytes.size();
    }
    parts_.erase(parts_.begin(), parts_.begin() + static_cast<std::ptrdiff_t>(sent));
  }

  void release(int linger_ms) {
    if (context_ == nullptr) return;
    zmq_socket_monitor(socket_, nullptr, 0);
    if (monitor_ != nullptr) zmq_close(monitor_);
    set(ZMQ_LINGER, linger_ms);
    zmq_close(socket_);
    zmq_ctx_term(context_);
    context_ = socket_ = monitor_ = nullptr;
    ready_ = accepted_ = false;
    parts_.clear();
    queued_ = 0;
  }

  CurveKeys keys_;
  void* context_ = nullptr;
  void* socket_ = nullptr;
  void* monitor_ = nullptr;
  bool accepted_ = false, ready_ = false;
  std::uint64_t received_ = 0;
  std::vector<Queued> parts_;
  std::size_t queued_ = 0;
  std::string detail_;
};

}  // namespace

std::unique_ptr<Transport> make_curve_transport(const CurveKeys& keys) { return std::make_unique<Curve>(keys); }

}  // namespace worldwire

#endif
