// A stream of bytes that never blocks. The core brings TCP (POSIX and Winsock); an engine may bring its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "worldwire/result.h"

namespace worldwire {

class Socket {
 public:
  virtual ~Socket() = default;

  // Begins to connect. ok: under way, ask `progress`. unreachable: no such host.
  virtual Result connect(const char* host, std::uint16_t port) = 0;

  // would_block: still connecting; ok: connected; nothing_listens or unreachable: it failed.
  virtual Result progress() = 0;

  // Moves up to `size` bytes, *moved says how many. would_block: none now. closed: never again.
  virtual Result send(const std::uint8_t* data, std::size_t size, std::size_t* moved) = 0;
  virtual Result receive(std::uint8_t* data, std::size_t size, std::size_t* moved) = 0;

  // Returns when there is something to read (or room to write, if that is waited for), at the latest after
  // `timeout_ms`. Must allow that another thread sends meanwhile.
  virtual void wait(bool for_writing, int timeout_ms) = 0;

  // Frees the connection; the object may `connect` again.
  virtual void close() = 0;
};

// TCP, without delay for small messages. Names are looked up with getaddrinfo, which may block for a while.
std::unique_ptr<Socket> make_tcp_socket();

}  // namespace worldwire
