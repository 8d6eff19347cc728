// Pictures that have come and wait to be shown: a few slots of memory that are used over and over.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "worldwire/bytes.h"
#include "worldwire/protocol.h"

namespace worldwire {

enum class PixelFormat : std::uint8_t { rgb, rgba, bgra, jpeg, h264, unknown };

PixelFormat pixel_format(std::string_view name);
std::string_view name_of(PixelFormat format);
// 3 or 4; 0 for compressed formats.
int bytes_per_pixel(PixelFormat format);

constexpr std::size_t kShownMemoryLatents = 16;

// One picture and what is known about it. `pixels` stays as it is until the next frame of this session is taken.
struct Frame {
  const std::uint8_t* pixels = nullptr;  // rows from the top without padding; or a JPEG; or an H.264 access unit
  std::size_t size = 0;                  // bytes
  PixelFormat format = PixelFormat::unknown;
  int width = 0, height = 0;
  bool key = true;             // decodable without the frames before it
  std::int64_t epoch = 0;      // counts resets and restores
  std::int64_t index = 0;      // 0 is the picture of the reset
  std::int64_t ack = 0;        // the newest input that it shows in full
  std::int64_t dropped = 0;    // frames that the server left out before it
  std::int64_t request = 0;    // of the reset or step; 0: a live frame
  std::int64_t t_ns = 0;       // the server's monotonic clock when it sent the frame
  std::int64_t received_ns = 0;  // ours, when all of it had come
  Vector3 position_m = {0, 0, 0};            // camera, wire axes: see worldwire/axes.h
  Vector4 quaternion_xyzw = {0, 0, 0, 1};
  double server_ms = 0;        // what the server spent for it, all stages
  std::array<std::int64_t, kShownMemoryLatents> memory_latents = {};
  std::size_t memory_count = 0;  // how many of memory_latents count
};

// A queue of bounded size: the jitter buffer. One slot is being written, one is held by whoever took it, the
// others wait in their order. When the way is too long the oldest waiting frame makes place, so with three slots
// this is a triple buffer, and the queue never grows. Not thread-safe.
class FrameQueue {
 public:
  // Makes room for `slots` frames of `bytes` each; shrinks nothing, keeps what waits.
  void reserve(std::size_t slots, std::size_t bytes);
  // Uses memory of the caller instead, `bytes` in each of `count` >= 3 buffers, which must live as long as this.
  void lend(std::uint8_t* const* buffers, std::size_t count, std::size_t bytes);

  // Where the next frame's bytes go; nullptr if they do not fit into lent memory. Again before `commit`: anew.
  std::uint8_t* begin(std::size_t bytes);
  // The frame that was begun is complete; `frame.pixels` is filled in here.
  void commit(const Frame& frame);

  // The oldest frame that waits, nullptr if there is none. It is valid until the next call.
  const Frame* take();
  // Forgets what waits but for the newest; how many that were.
  std::size_t drop_all_but_newest();
  void clear();

  std::size_t waiting() const { return count_; }
  // Frames that had to make place, since the last call.
  std::size_t take_overruns();

 private:
  struct Slot {
    Frame frame;
    Buffer own;
    std::uint8_t* lent = nullptr;
    bool free = true;
  };
  static constexpr std::size_t kNone = SIZE_MAX;

  void grow(std::size_t slots);
  void release(std::size_t* slot);
  std::size_t pop();

  std::vector<Slot> slots_;
  std::vector<std::size_t> order_;  // a ring of slot numbers
  std::size_t first_ = 0, count_ = 0;
  std::size_t writing_ = kNone, held_ = kNone;
  std::size_t bytes_ = 0;
  std::size_t overruns_ = 0;
  bool lent_ = false;
};

// Says when the next frame is due, so that steps that come in bursts play evenly. It never catches up: a late frame
// moves all later ones.
class FrameClock {
 public:
  void set_rate(double frames_per_second);
  bool due(std::int64_t now_ns) const { return now_ns >= next_ns_; }
  void shown(std::int64_t now_ns);

 private:
  std::int64_t period_ns_ = 0;
  std::int64_t next_ns_ = 0;
};

}  // namespace worldwire
