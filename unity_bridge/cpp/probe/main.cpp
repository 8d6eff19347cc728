// worldwire_probe: tests and measures the C++ client from outside. What it prints is for programs.
//
//   worldwire_probe vectors FILE.msgpack...             one JSON line for each: what it decodes and encodes to
//   worldwire_probe fuzz FILE                           decodes the records of FILE ([u32 size][part 0]...)
//   worldwire_probe fuzz-stream FILE                    the same records, and broken ZMTP, through a whole client
//   worldwire_probe bench ADDR SECONDS FORMAT [WINDOW]  frames a second, latency, allocations
//   worldwire_probe play ADDR [server-key=KEY] VERB...  see play.cpp
//   worldwire_probe threaded ADDR FRAMES                the same by a threaded client
//   worldwire_probe units                               checks the parts that need no server
//   worldwire_probe axes                                converts poses from stdin, see axes.cpp
#include <cstdio>
#include <cstring>

#include "probe.h"

namespace {

struct Verb {
  const char* name;
  int (*run)(const Arguments&);
  std::size_t fewest_arguments;
};

constexpr Verb kVerbs[] = {
    {"vectors", run_vectors, 1}, {"fuzz", run_fuzz, 1}, {"fuzz-stream", run_fuzz_stream, 1},
    {"bench", run_bench, 3},     {"play", run_play, 2}, {"axes", run_axes, 0},
    {"units", run_units, 0},     {"threaded", run_threaded, 2},
};

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argv + (argc > 1 ? 2 : 1), argv + argc);
  for (const Verb& verb : kVerbs) {
    if (argc > 1 && std::strcmp(argv[1], verb.name) == 0 && arguments.size() >= verb.fewest_arguments) {
      return verb.run(arguments);
    }
  }
  std::fputs("usage: worldwire_probe vectors|fuzz|fuzz-stream|bench|play|threaded|units|axes ..., see probe/main.cpp\n", stderr);
  return 2;
}
