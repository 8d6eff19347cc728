// Walks through a world and writes pictures.
//
//   worldwire_walk [ADDRESS] [FRAMES] [FOLDER] [PROMPT]
//
// ADDRESS tcp://127.0.0.1:5555, where `worldwire serve` listens; FRAMES 96; FOLDER walk, which must exist. Every
// eighth frame becomes FOLDER/00008.ppm. The walker goes forward and looks around.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "worldwire/worldwire.h"

namespace {

constexpr int kConnectMs = 60000;  // a server may still be loading its world
constexpr int kPictureEvery = 8;
constexpr double kTurnDeg = 3;     // at most, a frame
constexpr double kFramesOfATurn = 48;
constexpr double kPi = 3.14159265358979;

bool write_ppm(const std::string& path, const worldwire::Frame& frame) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) return false;
  std::fprintf(file, "P6\n%d %d\n255\n", frame.width, frame.height);
  const bool written = std::fwrite(frame.pixels, 1, frame.size, file) == frame.size;
  return std::fclose(file) == 0 && written;
}

int fail(const worldwire::Client& client) {
  std::fprintf(stderr, "%s %s\n", client.problem().text.c_str(), client.problem().remedy.c_str());
  return 1;
}

// What a walker does at this frame: forward, looking to and fro.
worldwire::PlayerInput walk(std::int64_t frame) {
  worldwire::PlayerInput input;
  input.keys = worldwire::kForward;
  input.yaw_deg = kTurnDeg * std::sin(2 * kPi * static_cast<double>(frame) / kFramesOfATurn);
  return input;
}

}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int index, const char* otherwise) { return std::string(argc > index ? argv[index] : otherwise); };
  const std::string folder = argument(3, "walk");
  const int frames = std::atoi(argument(2, "96").c_str());

  worldwire::ClientOptions options;
  options.address = argument(1, "tcp://127.0.0.1:5555");
  worldwire::Client client(std::move(options));
  worldwire::Session* session = client.open({});
  worldwire::ResetOptions reset;
  reset.prompt = argument(4, "");
  session->reset(reset);
  session->start();
  if (client.await_ready(kConnectMs) != worldwire::Result::ok) return fail(client);

  std::int64_t last = -1;
  while (last + 1 < frames && client.state() == worldwire::State::ready) {
    client.poll(10);
    const worldwire::Frame* frame = session->take_frame();
    if (frame == nullptr) continue;
    last = frame->index;
    session->send_input(walk(last));
    char name[32];
    std::snprintf(name, sizeof name, "/%05d.ppm", static_cast<int>(last));
    if (last % kPictureEvery == 0 && !write_ppm(folder + name, *frame)) {
      std::fprintf(stderr, "cannot write %s%s: does the folder exist?\n", folder.c_str(), name);
      return 1;
    }
  }
  if (client.state() != worldwire::State::ready) return fail(client);
  std::printf("%s: %d frames of %s, input to picture %.0f ms\n", folder.c_str(), frames, client.server().world.c_str(),
              session->figures().input_latency_ms);
  return 0;
}
