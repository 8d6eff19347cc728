// TCP over POSIX sockets or Winsock: the one file that knows the operating system.
#ifdef _WIN32
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <winsock2.h>
#include <ws2tcpip.h>
#else
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#endif

#include <cstdio>
#include <cstring>

#include "worldwire/socket.h"

namespace worldwire {
namespace {

constexpr int kReceiveBufferBytes = 4 << 20;  // a frame and a half of 1280x704: fewer, larger reads
constexpr std::size_t kMaxAddresses = 8;      // of one name that are tried in turn

#ifdef _WIN32
using Handle = SOCKET;
constexpr Handle kNone = INVALID_SOCKET;
constexpr int kSendFlags = 0;

bool start_sockets() {
  WSADATA data;
  return WSAStartup(MAKEWORD(2, 2), &data) == 0;  // counted by Winsock; the process's end undoes it
}
void close_handle(Handle handle) { closesocket(handle); }
int last_error() { return WSAGetLastError(); }
bool is_pending(int error) { return error == WSAEWOULDBLOCK || error == WSAEINPROGRESS; }
bool is_interrupted(int) { return false; }
bool is_refused(int error) { return error == WSAECONNREFUSED; }
bool make_non_blocking(Handle handle) {
  u_long yes = 1;
  return ioctlsocket(handle, FIONBIO, &yes) == 0;
}
int poll_one(WSAPOLLFD* entry, int timeout_ms) { return WSAPoll(entry, 1, timeout_ms); }
using PollEntry = WSAPOLLFD;
#else
using Handle = int;
constexpr Handle kNone = -1;
#ifdef MSG_NOSIGNAL
constexpr int kSendFlags = MSG_NOSIGNAL;
#else
constexpr int kSendFlags = 0;
#endif

bool start_sockets() { return true; }
void close_handle(Handle handle) { ::close(handle); }
int last_error() { return errno; }
bool is_pending(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINPROGRESS; }
bool is_interrupted(int error) { return error == EINTR; }
bool is_refused(int error) { return error == ECONNREFUSED; }
bool make_non_blocking(Handle handle) { return fcntl(handle, F_SETFL, fcntl(handle, F_GETFL, 0) | O_NONBLOCK) == 0; }
int poll_one(pollfd* entry, int timeout_ms) { return ::poll(entry, 1, timeout_ms); }
using PollEntry = pollfd;
#endif

template <class T>
void set_option(Handle handle, int level, int name, T value) {
  setsockopt(handle, level, name, reinterpret_cast<const char*>(&value), sizeof value);
}

class TcpSocket final : public Socket {
 public:
  ~TcpSocket() override { release(); }

  Result connect(const char* host, std::uint16_t port) override {
    release();
    if (!start_sockets() || !look_up(host, port)) return Result::unreachable;
    return try_next();
  }

  Result progress() override {
    if (connected_) return Result::ok;
    if (handle_ == kNone) return Result::unreachable;
    PollEntry entry{};
    entry.fd = handle_;
    entry.events = POLLOUT;
    if (poll_one(&entry, 0) <= 0) return Result::would_block;
    const int error = pending_error();
    if (error == 0) {
      connected_ = true;
      return Result::ok;
    }
    refused_ |= is_refused(error);
    return try_next() == Result::ok ? Result::would_block : failure();
  }

  Result send(const std::uint8_t* data, std::size_t size, std::size_t* moved) override {
    return finish(::send(handle_, reinterpret_cast<const char*>(data), chunk(size), kSendFlags), moved);
  }

  Result receive(std::uint8_t* data, std::size_t size, std::size_t* moved) override {
    return finish(::recv(handle_, reinterpret_cast<char*>(data), chunk(size), 0), moved);
  }

  void wait(bool for_writing, int timeout_ms) override {
    PollEntry entry{};
    entry.fd = handle_;
    entry.events = static_cast<short>(POLLIN | (for_writing || !connected_ ? POLLOUT : 0));
    poll_one(&entry, timeout_ms);
  }

  void close() override { release(); }

 private:
  struct Address {
    sockaddr_storage bytes;
    socklen_t size;
  };
#ifdef _WIN32
  static int chunk(std::size_t size) { return size > (1 << 30) ? 1 << 30 : static_cast<int>(size); }
#else
  static std::size_t chunk(std::size_t size) { return size; }
#endif

  void release() {
    drop();
    addresses_ = next_ = 0;
    refused_ = false;
  }

  void drop() {
    if (handle_ != kNone) close_handle(handle_);
    handle_ = kNone;
    connected_ = false;
  }

  bool look_up(const char* host, std::uint16_t port) {
    char service[8];
    std::snprintf(service, sizeof service, "%u", static_cast<unsigned>(port));
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(host, service, &hints, &found) != 0) return false;
    for (const addrinfo* item = found; item != nullptr && addresses_ < kMaxAddresses; item = item->ai_next) {
      Address& address = list_[addresses_++];
      std::memcpy(&address.bytes, item->ai_addr, item->ai_addrlen);
      address.size = static_cast<socklen_t>(item->ai_addrlen);
    }
    freeaddrinfo(found);
    return addresses_ > 0;
  }

  // Begins with the next address of the name (localhost is often ::1 first, where a server need not listen).
  Result try_next() {
    while (next_ < addresses_) {
      drop();
      const Address& address = list_[next_++];
      handle_ = ::socket(address.bytes.ss_family, SOCK_STREAM, 0);
      if (handle_ == kNone || !make_non_blocking(handle_)) continue;
      prepare();
      if (::connect(handle_, reinterpret_cast<const sockaddr*>(&address.bytes), address.size) == 0) return Result::ok;
      if (is_pending(last_error())) return Result::ok;
      refused_ |= is_refused(last_error());
    }
    drop();
    return failure();
  }

  void prepare() {
    set_option(handle_, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(handle_, SOL_SOCKET, SO_RCVBUF, kReceiveBufferBytes);
#ifdef SO_NOSIGPIPE
    set_option(handle_, SOL_SOCKET, SO_NOSIGPIPE, 1);
#endif
  }

  Result failure() const { return refused_ ? Result::nothing_listens : Result::unreachable; }

  int pending_error() const {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(handle_, SOL_SOCKET, SO_ERROR, reinterpret_cast<char*>(&error), &size);
    return error;
  }

  template <class Count>
  Result finish(Count count, std::size_t* moved) {
    *moved = count > 0 ? static_cast<std::size_t>(count) : 0;
    if (count > 0) return Result::ok;
    if (count == 0) return Result::closed;
    const int error = last_error();
    return is_pending(error) || is_interrupted(error) ? Result::would_block : Result::closed;
  }

  Handle handle_ = kNone;
  bool connected_ = false;
  bool refused_ = false;
  Address list_[kMaxAddresses];
  std::size_t addresses_ = 0, next_ = 0;
};

}  // namespace

std::unique_ptr<Socket> make_tcp_socket() { return std::make_unique<TcpSocket>(); }

}  // namespace worldwire
