// Messages of one or two parts, to and from one server.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "worldwire/bytes.h"
#include "worldwire/result.h"
#include "worldwire/socket.h"

namespace worldwire {

// Who takes what comes. Called from within Transport::poll only.
class MessageSink {
 public:
  // Part 0 has come and a payload of `size` bytes follows: where it goes, at once and without another copy.
  // nullptr throws it away; `on_message` then gets an empty payload.
  virtual std::uint8_t* payload_target(Bytes head, std::size_t size) = 0;
  virtual void on_message(Bytes head, Bytes payload) = 0;

 protected:
  ~MessageSink() = default;
};

class Transport {
 public:
  virtual ~Transport() = default;

  // Begins to connect to tcp://HOST:PORT. bad_address, unreachable, missing_libzmq, or ok.
  virtual Result open(const std::string& address) = 0;

  // Moves what can be moved now. would_block: still connecting; ok: connected; anything else ended the connection.
  virtual Result poll(MessageSink& sink) = 0;

  // Waits for something to do, at most `timeout_ms`. May run while another thread calls `send`.
  virtual void wait(int timeout_ms) = 0;

  // Queues a message; `poll` sends it. not_ready: not connected. busy: too much is queued already.
  virtual Result send(Bytes head, Bytes payload = {}) = 0;

  // Whether anything has accepted the connection, as opposed to answering in the right way.
  virtual bool accepted() const = 0;

  // Bytes that have come in so far: it grows while a large payload is on its way.
  virtual std::uint64_t received_bytes() const = 0;

  // Tries for at most `linger_ms` to send what is queued, and ends the connection.
  virtual void close(int linger_ms) = 0;

  // More about the last failure, for people; never null.
  virtual const char* detail() const = 0;
};

// Keys of CURVE, Z85 texts of 40 characters. Without a client's own pair a fresh one is made.
struct CurveKeys {
  std::string server_public;
  std::string client_public;
  std::string client_secret;
};

// ZMTP 3.1 with the NULL mechanism, as a DEALER, over any socket.
std::unique_ptr<Transport> make_zmtp_transport(std::unique_ptr<Socket> socket);

// CURVE through libzmq; nullptr in a build without WORLDWIRE_WITH_LIBZMQ.
std::unique_ptr<Transport> make_curve_transport(const CurveKeys& keys);

// Takes tcp://HOST:PORT apart ([::1] for IPv6); bad_address otherwise.
Result parse_address(const std::string& address, std::string* host, std::uint16_t* port);

}  // namespace worldwire
