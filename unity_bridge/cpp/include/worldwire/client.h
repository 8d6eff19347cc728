// A client of a worldwire server: polled, single-threaded, without exceptions.
//
//   worldwire::Client client({"tcp://127.0.0.1:5555"});
//   worldwire::Session* session = client.open({});
//   session->reset({"a village by day"});
//   session->start();
//   while (running) {
//     client.poll(5);                                  // all reading and writing happens here
//     session->send_input({worldwire::kForward, 1.5});
//     if (const worldwire::Frame* frame = session->take_frame()) show(frame->pixels);
//   }
//
// Nothing has to wait for the connection: what a session is to do is remembered and done once it can be. When the
// connection is lost the client comes back by itself and takes its sessions over; a server that was started anew
// gets them opened, reset and started again. In steady state (input out, frame in) nothing is allocated.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "worldwire/frames.h"
#include "worldwire/protocol.h"
#include "worldwire/result.h"
#include "worldwire/transport.h"

namespace worldwire {

class Client;
class Session;

// Nanoseconds of the monotonic clock (steady_clock) that all times of ours are of.
std::int64_t now_ns();

// Keys that are held, added up.
enum Key : std::uint32_t { kForward = 1, kBack = 2, kLeft = 4, kRight = 8, kJump = 16, kAttack = 32 };

// Position and rotation of the camera, wire axes (x right, y down, z forward), metres, quaternion x, y, z, w.
// worldwire/axes.h converts from those of engines.
struct Pose {
  Vector3 position_m = {0, 0, 0};
  Vector4 quaternion_xyzw = {0, 0, 0, 1};
};

// What a player does from now on, or in `step` during one frame.
struct PlayerInput {
  std::uint32_t keys = 0;   // of Key
  double yaw_deg = 0;       // turn since the last input, + right, at most 180 to either side
  double pitch_deg = 0;     // + up
  std::optional<Pose> pose = {};  // wins over keys and look
};

struct ClientOptions {
  std::string address = "tcp://127.0.0.1:5555";
  std::string name = "worldwire-cpp 1.0.0";  // for the server's log
  // CURVE: the server's public key (Z85, 40 characters), and a key pair of ours if the server lists its clients.
  CurveKeys keys = {};
  bool reconnect = true;
  int connect_timeout_ms = 5000;
  int retry_ms = 250;        // the first pause before another try; it doubles up to longest_retry_ms
  int longest_retry_ms = 2000;
  // Payloads that are larger are thrown away, whatever the server says: no memory is taken for them.
  std::size_t most_payload_bytes = std::size_t{512} << 20;
  // Brings another stream than TCP of the operating system, such as an engine's.
  std::unique_ptr<Socket> (*make_socket)() = make_tcp_socket;
};

enum class State : std::uint8_t {
  idle,        // before connect, after close
  connecting,  // up to the server's welcome
  loading,     // the server reads its world
  ready,
  waiting,     // for the next try to connect
  failed,      // for good: connect() begins anew
};

// Why there is no connection, or no room; for a person who must do something about it.
struct Problem {
  Result cause = Result::ok;
  std::string text;        // one line
  std::string remedy;      // what to do; may be empty
  double progress = 0;     // 0 .. 1, while the server loads
  std::string stage;       // what the loading is at; may be empty
};

// What a server says about itself and its world; texts are copies.
struct ServerInfo {
  std::string server, world;
  std::array<std::int64_t, 2> version = {0, 0};
  int width = 0, height = 0;
  double frames_per_second = 0;
  int frames_per_step = 0;
  double horizontal_fov_deg = 0;
  std::vector<std::string> trained_keys, views, seed_images, formats;
  Limits limits;
};

// The newest answer to Client::status, and what a loading server said last.
struct ServerStatus {
  std::string state;  // loading, ready, busy
  int sessions = 0, max_sessions = 0, queue = 0;
  double uptime_s = 0, peak_memory_gib = 0;
};

// The last answer to a request.
struct Answer {
  std::int64_t request = 0;
  Result result = Result::ok;  // refused: see the texts; closed: the connection went before the answer came
  Session* session = nullptr;  // nullptr: of the connection, or closed meanwhile
  std::string code, problem, expected, got, remedy;  // of the error
  std::string state;           // of save with keep: the name
};

// Called from within Client::poll. Take what you need; do not close sessions or the client in there.
class Listener {
 public:
  virtual void on_state(Client&) {}
  // After `opened`; `resumed` tells that it goes on where it was before the connection was lost.
  virtual void on_session(Session&, bool /*resumed*/) {}
  virtual void on_answer(const Answer&) {}
  // An error that answers no request: a bad input (session set), or the end of a session.
  virtual void on_error(const Answer&) {}

 protected:
  ~Listener() = default;
};

struct OpenOptions {
  std::vector<std::string> formats = {"rgb"};  // preferred first; also rgba, bgra, jpeg, h264
  std::string plan = {};                       // clip plan; empty: the server's
  int jpeg_quality = 90;
};

// A seed image: RGB rows from the top, of the size of the world. Copied.
struct SeedImage {
  const std::uint8_t* rgb = nullptr;
  int width = 0, height = 0;
};

struct ResetOptions {
  std::string prompt = {};  // empty: none
  std::string image = {};   // name of a seed image of the server; empty: none
  std::string view = {};    // one of ServerInfo::views; empty: the image's, or the first
  std::int64_t seed = 0;
  SeedImage pixels = {};    // instead of `image`
};

enum class SessionState : std::uint8_t {
  opening,  // waits for the connection, for room, or for the server's answer
  empty,    // wants a reset
  ready,    // takes everything
  live,     // the world runs by itself
  over,     // for good: closed, or failed on the server
};

// One player's walk. Belongs to its client.
class Session {
 public:
  SessionState state() const { return state_; }
  std::int64_t epoch() const { return epoch_; }
  int frames_per_step() const { return frames_per_step_; }
  PixelFormat format() const { return format_; }

  // Requests: each returns its number, which comes back in an Answer, or 0 if it cannot be asked now.
  // reset, start and prompt may be asked before there is a connection, and survive its loss.
  std::int64_t reset(const ResetOptions& options = {});
  std::int64_t prompt(std::string_view text);
  // window: frames that may be under way, 0 for one step and a little more. 1 gives the newest of each step.
  std::int64_t start(int window = 0);
  std::int64_t pause();
  // Exactly frames_per_step inputs.
  std::int64_t step(const PlayerInput* inputs, std::size_t count);
  std::int64_t save();                        // the state is saved_state() afterwards
  std::int64_t keep();                        // the server keeps it: Answer::state is its name
  std::int64_t restore(Bytes state);
  std::int64_t restore(std::string_view kept);
  // Another session that goes on from here; nullptr if that cannot be asked now.
  Session* branch();
  void close();  // frees the session: the pointer is of no use afterwards

  // Tells what the player does from now on. Returns its number, which comes back in Frame::ack; 0: not sent.
  std::int64_t send_input(const PlayerInput& input);

  // Frames in their order, as soon as they are there. Whoever did not take any for a second gets the newest.
  const Frame* take_frame();
  // The same, evenly at the world's own rate: nullptr while the next one is not due.
  const Frame* take_due_frame();
  // The newest, past all others.
  const Frame* take_newest_frame();
  std::size_t frames_waiting() const { return queue_.waiting(); }

  const Buffer& saved_state() const { return saved_; }
  FrameQueue& queue() { return queue_; }  // to lend it memory

  struct Figures {
    std::int64_t received = 0, taken = 0;
    std::int64_t dropped = 0;         // left out by the server
    std::int64_t skipped = 0;         // thrown away here: old, or the taker stalled
    double frames_per_second = 0;     // taken
    double transport_ms = 0;          // of the newest frame, by the quickest ping
    double input_latency_ms = 0;      // from send_input to taking the first frame that shows it
  };
  const Figures& figures() const { return figures_; }

 private:
  friend class Client;
  explicit Session(Client& client) : client_(client) {}

  // What it is to be, so that it can be made again.
  struct Wish {
    OpenOptions open;
    ResetOptions reset;
    Buffer image;
    bool has_reset = false;
    bool live = false;
    int window = 0;
    std::string prompt;
    // Requests that were asked for and are not answered; 0: none.
    std::int64_t reset_request = 0, start_request = 0, prompt_request = 0;
  };

  bool connected() const;
  void adopt(const ResumedSession& known);
  void opened(const Opened& message, bool branched);
  void begin(bool resumed, bool wants_reset);
  void done(std::int64_t epoch, std::int64_t frames_per_step);
  void settle(std::int64_t request);
  void end();
  void send_open();
  void send_reset();
  void send_start();
  void send_prompt();
  void flush_credit(std::int64_t now);
  void make_room();
  int wanted_window() const;
  void advance(std::int64_t epoch);
  std::uint8_t* target(const FrameMessage& message, std::size_t bytes);
  void arrived(const FrameMessage& message);
  const Frame* took(const Frame* frame);
  void skip_backlog();
  void give_credit(std::size_t frames);
  void note_latency(const Frame& frame);

  static constexpr std::size_t kRemembered = 256;  // inputs whose time of sending is kept

  Client& client_;
  Wish wish_;
  SessionState state_ = SessionState::opening;
  std::int64_t id_ = 0;  // on the wire; 0: not opened
  std::int64_t epoch_ = 0, seq_ = 0;
  int frames_per_step_ = 0;
  PixelFormat format_ = PixelFormat::unknown;
  FrameQueue queue_;
  FrameClock clock_;
  Buffer saved_;
  Input input_;  // used over and over
  std::array<std::int64_t, kRemembered> sent_ns_ = {};
  std::int64_t shown_seq_ = 0;
  std::int64_t last_take_ns_ = 0;
  std::size_t owed_ = 0;  // credit that is not given back yet
  std::int64_t credit_ns_ = 0;
  std::int64_t rate_began_ns_ = 0, rate_count_ = 0;
  Figures figures_;
};

class Client : private MessageSink {
 public:
  // Connects with the next poll. `listener` may be nullptr and must live as long as this.
  explicit Client(ClientOptions options, Listener* listener = nullptr);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void connect();  // again, after close or failed
  void close();    // says goodbye: the sessions end for good

  // Reads, writes and keeps the connection alive; waits up to `timeout_ms` for something to come. Call it at
  // least every second. What was sent before leaves now.
  void poll(int timeout_ms);
  // Only waits. May run in a thread of its own while another one calls anything but poll, connect and close.
  void wait(int timeout_ms);

  State state() const { return state_; }
  const Problem& problem() const { return problem_; }  // cause ok: none
  const ServerInfo& server() const { return server_; }  // once it was ready
  const ClientOptions& options() const { return options_; }

  Session* open(const OpenOptions& options);
  std::int64_t status();  // answered by last_status()
  const ServerStatus& last_status() const { return status_; }

  // Polls until `request` is answered; timed_out if it is not in time. For tools: an engine uses its Listener.
  Answer await(std::int64_t request, int timeout_ms);
  // Polls until the connection is ready, or the session is open; what is wrong otherwise.
  Result await_ready(int timeout_ms);
  Result await_open(const Session& session, int timeout_ms);

  double round_trip_ms() const;   // the quickest of the last pings; 0 before the first
  std::int64_t unreadable() const { return unreadable_; }  // messages that were dropped

 private:
  friend class Session;
  enum class Asked : std::uint8_t { open, reset, prompt, start, pause, step, save, restore, branch, close, status };
  struct Pending {
    std::int64_t request;
    Asked asked;
    Session* session;
  };
  struct RoundTrip {
    std::int64_t duration_ns = 0;
    std::int64_t offset_ns = 0;  // how far the server's clock is ahead of ours
  };

  // connection
  void advance();
  void begin_connecting();
  void run_timers(std::int64_t now, bool connected);
  void say_hello(std::int64_t now);
  void lose(Result cause, std::string text, std::string remedy, bool for_good = false);
  void lose_transport(Result cause);
  void lose_time(std::int64_t now);
  bool is_open() const { return state_ == State::connecting || state_ == State::loading || state_ == State::ready; }
  void change(State state);
  void forget_pending();
  void open_waiting_sessions(std::int64_t now);
  void deliver_late_answers();

  // messages
  std::uint8_t* payload_target(Bytes head, std::size_t size) override;
  void on_message(Bytes head, Bytes payload) override;
  void on_frame(Bytes payload);
  void on_welcome(Bytes head);
  void on_status(Bytes head);
  void on_opened(Bytes head);
  void on_done(Bytes head);
  void on_saved(Bytes head);
  void on_pong(Bytes head);
  void on_error(Bytes head);
  void on_bye(Bytes head);
  void refused_hello(const ErrorMessage& error);
  void refused_request(const ErrorMessage& error, const Pending& pending);
  void copy_server_info(const Welcome& welcome);
  void revive_sessions(const Welcome& welcome);

  // requests
  std::int64_t next_request() { return ++last_request_; }
  template <class M>
  bool send(const M& message, Bytes payload = {});
  template <class M>
  std::int64_t ask(Asked asked, Session* session, M& message, Bytes payload = {});
  bool take_pending(std::int64_t request, Pending* pending);
  void answer(const Answer& answer);
  void answer_later(std::int64_t request, Result result, Session* session, const char* field);
  Session* find(std::int64_t id);
  void remove(Session* session);
  const RoundTrip* best_round_trip() const;

  ClientOptions options_;
  Listener* listener_;
  std::unique_ptr<Transport> transport_;
  State state_ = State::idle;
  Problem problem_;
  ServerInfo server_;
  ServerStatus status_;
  std::string token_;
  std::vector<std::unique_ptr<Session>> sessions_;
  std::vector<Pending> pending_;
  std::vector<Answer> late_;                 // for the next poll
  std::array<Answer, 32> answers_ = {};      // the last ones, for await
  std::size_t next_answer_ = 0;
  Buffer head_;                  // of what is sent
  FrameMessage frame_;           // used over and over
  Session* frame_session_ = nullptr;
  std::array<RoundTrip, 16> trips_ = {};
  std::size_t trip_count_ = 0;
  std::int64_t last_request_ = 0, hello_request_ = 0;
  std::int64_t began_ns_ = 0, polled_ns_ = 0, heard_ns_ = 0, pinged_ns_ = 0, hello_ns_ = 0, retry_ns_ = 0;
  std::int64_t reopen_ns_ = 0;  // when sessions that found no room ask again; 0: none does
  std::uint64_t heard_bytes_ = 0;
  int retry_pause_ms_ = 0;
  std::int64_t unreadable_ = 0;
};

}  // namespace worldwire
