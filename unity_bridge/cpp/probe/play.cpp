#include <cstdio>
#include "probe.h"
#include "worldwire/worldwire.h"
using namespace worldwire;
int run_play(const Arguments& a) {
  ClientOptions o; o.address = a[0];
  Client client(std::move(o));
  std::printf("ready %s\n", name_of(client.await_ready(10000)));
  std::printf("%s %s\n", client.problem().text.c_str(), client.server().world.c_str());
  Session* s = client.open({});
  std::printf("open %s\n", name_of(client.await_open(*s, 5000)));
  std::printf("reset %s\n", name_of(client.await(s->reset({}), 60000).result));
  std::printf("start %s\n", name_of(client.await(s->start(), 5000).result));
  int n = 0; 
  while (n < 100) { client.poll(5); PlayerInput in; in.keys = kForward; in.yaw_deg = 0.5; if (n % 8 == 0) s->send_input(in); if (const Frame* f = s->take_frame()) { ++n; if (n % 20 == 0) std::printf("frame %lld ack %lld lat %.1f tr %.2f\n", (long long)f->index, (long long)f->ack, s->figures().input_latency_ms, s->figures().transport_ms); } }
  return 0;
}
int main(int argc, char** argv) { return run_play(Arguments(argv + 1, argv + argc)); }
