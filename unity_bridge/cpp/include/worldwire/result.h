// What an operation came to. The core never throws and never prints: it returns one of these.
#pragma once

#include <cstdint>

namespace worldwire {

enum class Result : std::uint8_t {
  ok,
  would_block,       // nothing to read now, or the way out is full: try again after a poll
  timed_out,         // no answer in the time that was given
  not_ready,         // the session or the connection is not in a state that takes this
  bad_address,       // not tcp://HOST:PORT
  nothing_listens,   // the machine refuses the connection: no server at this address
  unreachable,       // no such host, or no way to it
  closed,            // the other side closed the connection, or said goodbye
  loading,           // the server reads its world: progress and stage say how far it is
  stalled,           // connected, but nothing has come for longer than `liveness_s`
  not_worldwire,     // something listens, but it does not speak ZMTP 3 or this protocol
  wrong_key,         // the encrypted handshake failed, or only one side wants encryption
  bad_message,       // bytes that are no message of this protocol
  version_mismatch,  // the other side speaks another major version
  bad_argument,      // a field of a message of ours is out of its range
  refused,           // the server answered with an error: see Answer
  busy,              // the server has no room for another session
  missing_libzmq,    // a server key was given, but this build has no WORLDWIRE_WITH_LIBZMQ
};

// The name of a result, as it stands above; for logs.
const char* name_of(Result result);

}  // namespace worldwire
