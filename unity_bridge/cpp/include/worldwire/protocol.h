// The messages of the worldwire protocol 1.0 (sdk/PROTOCOL.md is the specification, this is its C++ reading).
//
// A message is a plain struct whose fields stand in the order of the wire. Its `fields` names them, with the numbers
// or lengths that are allowed; encoding, decoding and the tests' printing all follow from that one list.
//
// Texts of a decoded message are views into its bytes: copy what must outlive them. Decode into the same object
// again and its lists keep their memory: nothing is allocated once it has grown to the usual size.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "worldwire/bytes.h"
#include "worldwire/result.h"

namespace worldwire {

constexpr std::array<std::int64_t, 2> kVersion = {1, 0};
constexpr std::size_t kMaxHeadBytes = 256 * 1024;  // of part 0
constexpr int kMaxWindowFrames = 4096;

constexpr std::int64_t kMaxId = std::int64_t{1} << 53;  // whole numbers that a double holds exactly

// The allowed numbers, lengths of a text in characters, or entries of a list (and then what each of those may
// be); both ends included.
struct Span {
  std::int64_t low;
  std::int64_t high;
  std::int64_t entries_high = INT64_MAX;
};
constexpr Span kAny = {INT64_MIN, INT64_MAX};  // reals, booleans, maps, texts and lists of any length
constexpr Span kInt64 = {0, INT64_MAX};        // seeds, and ns: nanoseconds of the writer's monotonic clock
constexpr Span kId = {1, kMaxId};
constexpr Span kCount = {0, kMaxId};
constexpr Span kCounts = {0, INT64_MAX, kMaxId};
constexpr Span kNames = {0, INT64_MAX, 256};
constexpr Span kUnit = {0, 1};
constexpr Span kSeconds = {0, 1'000'000'000};
constexpr Span kName = {0, 256};
constexpr Span kPrompt = {0, 2000};
constexpr Span kSidePx = {1, 8192};
constexpr Span kWindow = {1, kMaxWindowFrames};
constexpr Span kFormats = {1, 16};
constexpr Span kKeys = {0, 32};
constexpr Span kQuality = {1, 100};

using Vector2 = std::array<double, 2>;
using Vector3 = std::array<double, 3>;
using Vector4 = std::array<double, 4>;  // quaternions: x, y, z, w
using Texts = std::vector<std::string_view>;

// ------------------------------------------------------------------------------------ parts of messages

// A msgpack map of anything, as its bytes (an empty view is the empty map).
struct PackedMap {
  Bytes bytes;
};

struct Timing {
  std::string_view stage;
  double ms = 0;
};

// What leads to one frame, or, in Input, what a player does from now on. OpenCV axes, see worldwire/axes.h.
struct Control {
  static constexpr bool kIsMap = true;  // inside of messages
  Texts keys;                    // held: forward, back, left, right, jump, attack
  Vector2 look_deg = {0, 0};     // yaw (+ right), pitch (+ up)
  std::optional<Vector3> position_m;       // camera; a pose wins over keys and look
  std::optional<Vector4> quaternion_xyzw;  // camera to world; position and quaternion come together

  template <class Visitor>
  static void fields(Visitor& v) {
    v.optional("keys", &Control::keys, kKeys);
    v.optional("look_deg", &Control::look_deg, kAny);
    v.optional("position_m", &Control::position_m, kAny);
    v.optional("quaternion_xyzw", &Control::quaternion_xyzw, kAny);
  }
};

struct WorldFields {
  static constexpr bool kIsMap = true;  // inside of messages
  std::string_view name;
  std::int64_t height = 0, width = 0;  // pixels
  double frames_per_second = 0;        // of the world's own time
  std::int64_t frames_per_step = 0;
  double horizontal_fov_deg = 0;
  Texts trained_keys, views, seed_images;
  PackedMap extra;

  template <class Visitor>
  static void fields(Visitor& v) {
    using M = WorldFields;
    v.required("name", &M::name, kAny);
    v.required("height", &M::height, kSidePx);
    v.required("width", &M::width, kSidePx);
    v.required("frames_per_second", &M::frames_per_second, kAny);
    v.required("frames_per_step", &M::frames_per_step, kCount);
    v.required("horizontal_fov_deg", &M::horizontal_fov_deg, kAny);
    v.required("trained_keys", &M::trained_keys, kAny);
    v.required("views", &M::views, kAny);
    v.required("seed_images", &M::seed_images, kAny);
    v.optional("extra", &M::extra, kAny);
  }
};

struct Limits {
  static constexpr bool kIsMap = true;  // inside of messages
  std::int64_t message_bytes = 256 << 20;   // largest part
  std::int64_t sessions = 4;
  std::int64_t messages_per_second = 2000;  // of one client
  std::int64_t queued_requests = 64;        // of one session
  std::int64_t kept_states = 16;
  std::int64_t kept_bytes = 1 << 30;
  double heartbeat_s = 2;   // a client says something at least this often
  double liveness_s = 10;   // a side that was silent for longer is given up
  double resume_s = 30;     // how long a lost connection's sessions wait for it

  template <class Visitor>
  static void fields(Visitor& v) {
    v.optional("message_bytes", &Limits::message_bytes, kCount);
    v.optional("sessions", &Limits::sessions, kCount);
    v.optional("messages_per_second", &Limits::messages_per_second, kCount);
    v.optional("queued_requests", &Limits::queued_requests, kCount);
    v.optional("kept_states", &Limits::kept_states, kCount);
    v.optional("kept_bytes", &Limits::kept_bytes, kCount);
    v.optional("heartbeat_s", &Limits::heartbeat_s, kSeconds);
    v.optional("liveness_s", &Limits::liveness_s, kSeconds);
    v.optional("resume_s", &Limits::resume_s, kSeconds);
  }
};

struct ResumedSession {
  static constexpr bool kIsMap = true;  // inside of messages
  std::int64_t session = 0, epoch = 0, frames_per_step = 0;
  std::string_view format;
  std::int64_t seq = 0;  // of the newest input that was taken

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("session", &ResumedSession::session, kId);
    v.required("epoch", &ResumedSession::epoch, kCount);
    v.required("frames_per_step", &ResumedSession::frames_per_step, kCount);
    v.required("format", &ResumedSession::format, kName);
    v.optional("seq", &ResumedSession::seq, kCount);
  }
};

// ------------------------------------------------------------------------------------ client to server

struct Hello {
  static constexpr std::string_view kType = "hello";
  std::int64_t request = 0;
  std::array<std::int64_t, 2> version = kVersion;
  std::string_view client;
  std::optional<std::string_view> resume;  // the token of an earlier welcome

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("request", &Hello::request, kId);
    v.required("version", &Hello::version, kCount);
    v.required("client", &Hello::client, kName);
    v.optional("resume", &Hello::resume, kName);
  }
};

struct Open {
  static constexpr std::string_view kType = "open";
  std::int64_t request = 0;
  std::optional<std::string_view> plan;
  Texts formats = {"rgb"};  // preferred first
  std::int64_t jpeg_quality = 90;

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("request", &Open::request, kId);
    v.optional("plan", &Open::plan, kName);
    v.optional("formats", &Open::formats, kFormats);
    v.optional("jpeg_quality", &Open::jpeg_quality, kQuality);
  }
};

// With a payload: rows of RGB, top row first, image_height x image_width; `image` names a shipped one instead.
struct Reset {
  static constexpr std::string_view kType = "reset";
  std::int64_t request = 0, session = 0, seed = 0;
  std::optional<std::string_view> view, prompt, image;
  std::optional<std::int64_t> image_height, image_width;

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("request", &Reset::request, kId);
    v.required("session", &Reset::session, kId);
    v.optional("seed", &Reset::seed, kInt64);
    v.optional("view", &Reset::view, kName);
    v.optional("prompt", &Reset::prompt, kPrompt);
    v.optional("image", &Reset::image, kName);
    v.optional("image_height", &Reset::image_height, kSidePx);
    v.optional("image_width", &Reset::image_width, kSidePx);
  }
};

struct Prompt {
  static constexpr std::string_view kType = "prompt";
  std::int64_t request = 0, session = 0;
  std::string_view prompt;

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("request", &Prompt::request, kId);
    v.required("session", &Prompt::session, kId);
    v.required("prompt", &Prompt::prompt, kPrompt);
  }
};

struct Step {
  static constexpr std::string_view kType = "step";
  std::int64_t request = 0, session = 0;
  std::vector<Control> inputs;  // one for each frame of the step

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("request", &Step::request, kId);
    v.required("session", &Step::session, kId);
    v.required("inputs", &Step::inputs, kWindow);
  }
};

struct Start {
  static constexpr std::string_view kType = "start";
  std::int64_t request = 0, session = 0, window = 0;  // frames that may be under way

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("request", &Start::request, kId);
    v.required("session", &Start::session, kId);
    v.required("window", &Start::window, kWindow);
  }
};

// Requests that only name their session.
template <class Derived>
struct SessionRequest {
  std::int64_t request = 0, session = 0;

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("request", &SessionRequest::request, kId);
    v.required("session", &SessionRequest::session, kId);
  }
};
struct Pause : SessionRequest<Pause> {
  static constexpr std::string_view kType = "pause";
};
struct Branch : SessionRequest<Branch> {
  static constexpr std::string_view kType = "branch";
};
struct Close : SessionRequest<Close> {
  static constexpr std::string_view kType = "close";
};

struct Input : Control {
  static constexpr std::string_view kType = "input";
  std::int64_t session = 0, seq = 0;

  template <class Visitor>
  static void fields(Visitor& v) {
    Control::fields(v);
    v.required("session", &Input::session, kId);
    v.required("seq", &Input::seq, kId);
  }
};

struct Credit {
  static constexpr std::string_view kType = "credit";
  std::int64_t session = 0, frames = 0;

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("session", &Credit::session, kId);
    v.required("frames", &Credit::frames, kWindow);
  }
};

struct Save {
  static constexpr std::string_view kType = "save";
  std::int64_t request = 0, session = 0;
  bool keep = false;  // on the server, under a name

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("request", &Save::request, kId);
    v.required("session", &Save::session, kId);
    v.optional("keep", &Save::keep, kAny);
  }
};

struct Restore {
  static constexpr std::string_view kType = "restore";
  std::int64_t request = 0, session = 0;
  std::optional<std::string_view> state;  // without it the payload is the state

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("request", &Restore::request, kId);
    v.required("session", &Restore::session, kId);
    v.optional("state", &Restore::state, kName);
  }
};

struct StatusRequest {
  static constexpr std::string_view kType = "status";
  std::int64_t request = 0;

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("request", &StatusRequest::request, kId);
  }
};

struct Ping {
  static constexpr std::string_view kType = "ping";
  std::int64_t t_ns = 0;

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("t_ns", &Ping::t_ns, kInt64);
  }
};

struct Bye {
  static constexpr std::string_view kType = "bye";
  std::string_view reason;
  bool resume = false;  // of a server: the sessions wait, the token takes them over

  template <class Visitor>
  static void fields(Visitor& v) {
    v.optional("reason", &Bye::reason, kAny);
    v.optional("resume", &Bye::resume, kAny);
  }
};

// ------------------------------------------------------------------------------------ server to client

struct Welcome {
  static constexpr std::string_view kType = "welcome";
  std::int64_t request = 0;
  std::array<std::int64_t, 2> version = {0, 0};
  std::string_view server;
  WorldFields world;
  Limits limits;
  std::string_view token;  // for Hello::resume
  std::vector<ResumedSession> resumed;
  Texts formats = {"rgb"};  // that this server can send

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("request", &Welcome::request, kId);
    v.required("version", &Welcome::version, kCount);
    v.required("server", &Welcome::server, kAny);
    v.required("world", &Welcome::world, kAny);
    v.required("limits", &Welcome::limits, kAny);
    v.optional("token", &Welcome::token, kName);
    v.optional("resumed", &Welcome::resumed, kAny);
    v.optional("formats", &Welcome::formats, kNames);
  }
};

struct Opened {
  static constexpr std::string_view kType = "opened";
  std::int64_t request = 0, session = 0, frames_per_step = 0;
  std::string_view format;

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("request", &Opened::request, kId);
    v.required("session", &Opened::session, kId);
    v.required("frames_per_step", &Opened::frames_per_step, kCount);
    v.required("format", &Opened::format, kName);
  }
};

struct FrameMessage {
  static constexpr std::string_view kType = "frame";
  std::int64_t session = 0, epoch = 0, index = 0;
  std::string_view format;
  std::int64_t height = 0, width = 0;
  Vector3 position_m = {0, 0, 0};
  Vector4 quaternion_xyzw = {0, 0, 0, 1};
  std::int64_t t_ns = 0;  // the server's clock when it sent the frame
  std::int64_t ack = 0;   // newest seq that this frame shows in full
  std::int64_t dropped = 0;
  std::vector<std::int64_t> memory_latents;
  std::vector<Timing> timings_ms;
  std::optional<std::int64_t> request;
  bool key = true;  // decodable alone

  template <class Visitor>
  static void fields(Visitor& v) {
    using M = FrameMessage;
    v.required("session", &M::session, kId);
    v.required("epoch", &M::epoch, kCount);
    v.required("index", &M::index, kCount);
    v.required("format", &M::format, kName);
    v.required("height", &M::height, kSidePx);
    v.required("width", &M::width, kSidePx);
    v.required("position_m", &M::position_m, kAny);
    v.required("quaternion_xyzw", &M::quaternion_xyzw, kAny);
    v.required("t_ns", &M::t_ns, kInt64);
    v.optional("ack", &M::ack, kCount);
    v.optional("dropped", &M::dropped, kCount);
    v.optional("memory_latents", &M::memory_latents, kCounts);
    v.optional("timings_ms", &M::timings_ms, kAny);
    v.optional("request", &M::request, kId);
    v.optional("key", &M::key, kAny);
  }
};

struct Done {
  static constexpr std::string_view kType = "done";
  std::int64_t request = 0, session = 0, epoch = 0, frames_per_step = 0;

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("request", &Done::request, kId);
    v.required("session", &Done::session, kId);
    v.required("epoch", &Done::epoch, kCount);
    v.required("frames_per_step", &Done::frames_per_step, kCount);
  }
};

struct Saved {
  static constexpr std::string_view kType = "saved";
  std::int64_t request = 0, session = 0, size = 0;
  std::optional<std::string_view> state;  // name of a kept state; without it the payload is the state

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("request", &Saved::request, kId);
    v.required("session", &Saved::session, kId);
    v.required("size", &Saved::size, kCount);
    v.optional("state", &Saved::state, kName);
  }
};

struct StatusReport {
  static constexpr std::string_view kType = "status_report";
  std::int64_t request = 0;
  std::string_view state;  // loading, ready, busy; anything else is not ready
  std::array<std::int64_t, 2> version = {0, 0};
  std::int64_t sessions = 0, max_sessions = 0;
  double uptime_s = 0;
  double peak_memory_gib = 0;
  std::optional<double> progress;         // 0 .. 1, while it loads
  std::optional<std::string_view> stage;  // for people
  std::int64_t queue = 0;                 // requests that wait

  template <class Visitor>
  static void fields(Visitor& v) {
    using M = StatusReport;
    v.required("request", &M::request, kId);
    v.required("state", &M::state, kName);
    v.required("version", &M::version, kCount);
    v.required("sessions", &M::sessions, kCount);
    v.required("max_sessions", &M::max_sessions, kCount);
    v.required("uptime_s", &M::uptime_s, kAny);
    v.optional("peak_memory_gib", &M::peak_memory_gib, kAny);
    v.optional("progress", &M::progress, kUnit);
    v.optional("stage", &M::stage, kAny);
    v.optional("queue", &M::queue, kCount);
  }
};

struct Pong {
  static constexpr std::string_view kType = "pong";
  std::int64_t t_ns = 0, server_t_ns = 0;

  template <class Visitor>
  static void fields(Visitor& v) {
    v.required("t_ns", &Pong::t_ns, kInt64);
    v.required("server_t_ns", &Pong::server_t_ns, kInt64);
  }
};

struct ErrorMessage {
  static constexpr std::string_view kType = "error";
  std::string_view code, problem;
  std::optional<std::string_view> expected, got, remedy;
  std::optional<std::int64_t> request, session, seq;
  bool fatal = false;  // the session is over; without a session, the connection

  template <class Visitor>
  static void fields(Visitor& v) {
    using M = ErrorMessage;
    v.required("code", &M::code, kName);
    v.required("problem", &M::problem, kAny);
    v.optional("expected", &M::expected, kAny);
    v.optional("got", &M::got, kAny);
    v.optional("remedy", &M::remedy, kAny);
    v.optional("request", &M::request, kId);
    v.optional("session", &M::session, kId);
    v.optional("seq", &M::seq, kId);
    v.optional("fatal", &M::fatal, kAny);
  }
};

// Every message: a list for those who need one of each.
#define WORLDWIRE_MESSAGES(X)                                                                                   \
  X(Hello) X(Open) X(Reset) X(Prompt) X(Step) X(Start) X(Pause) X(Input) X(Credit) X(Save) X(Restore) X(Branch) \
  X(Close) X(StatusRequest) X(Ping) X(Bye) X(Welcome) X(Opened) X(FrameMessage) X(Done) X(Saved)                \
  X(StatusReport) X(Pong) X(ErrorMessage)

// ------------------------------------------------------------------------------------ bytes

// Where a message was wrong: the field's name (static storage), or what is wrong with the whole.
struct Fault {
  const char* where = "";
};

// Whether a side of this version can talk to one of `theirs`: equal majors.
bool version_fits(const std::array<std::int64_t, 2>& theirs);

// The `version` of part 0, whatever else it holds; false if there is none.
bool version_of(Bytes head, std::array<std::int64_t, 2>* version);

// The `type` of part 0, wherever it stands in the map; false if this is no map, or has none.
bool type_of(Bytes head, std::string_view* type);

// Writes part 0 into `out` (what was there goes). bad_argument if a field is out of range.
template <class M>
Result encode(const M& message, Buffer& out, Fault* fault = nullptr);

// Reads part 0. bad_message if it is none of this type; version_mismatch for a hello of another major version,
// whatever else it holds. After a failure `message` holds nothing of use.
template <class M>
Result decode(Bytes head, M& message, Fault* fault = nullptr);

}  // namespace worldwire
