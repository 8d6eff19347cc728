// What the files of the client share. Not installed.
#pragma once

#include <cstdint>

#include "worldwire/client.h"

namespace worldwire {

constexpr std::int64_t kNsPerMs = 1'000'000;
constexpr std::int64_t kNsPerSecond = 1'000'000'000;

constexpr std::int64_t kBusyPauseNs = 2 * kNsPerSecond;  // between two tries to open a session
constexpr const char* kStartAgain = "Start it with `worldwire serve`, or look at the address.";

constexpr double to_ms(std::int64_t ns) { return static_cast<double>(ns) / static_cast<double>(kNsPerMs); }

// Encodes and queues; false if it cannot be said or the connection takes nothing.
template <class M>
bool Client::send(const M& message, Bytes payload) {
  return transport_ != nullptr && encode(message, head_) == Result::ok &&
         transport_->send(Bytes(head_), payload) == Result::ok;
}

// Sends a request and notes that it waits for its answer. What cannot be sent is answered by the next poll.
template <class M>
std::int64_t Client::ask(Asked asked, Session* session, M& message, Bytes payload) {
  Fault fault;
  Result result = encode(message, head_, &fault);
  pending_.push_back({message.request, asked, session});
  if (result == Result::ok) result = transport_->send(Bytes(head_), payload);
  if (result != Result::ok) answer_later(message.request, result, session, fault.where);
  return message.request;
}

}  // namespace worldwire
