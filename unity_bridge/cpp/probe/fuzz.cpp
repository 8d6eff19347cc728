// Feeds messages that are no messages to the decoder, and to a whole client by way of broken ZMTP.
#include <cstdio>
#include <cstring>
#include <memory>

#include "probe.h"
#include "worldwire/worldwire.h"

using namespace worldwire;

namespace {

// The records of a file: [u32, little endian: size][part 0].
class Records {
 public:
  explicit Records(const Buffer& bytes) : bytes_(bytes) {}

  bool next(Bytes* record) {
    if (bytes_.size() - at_ < 4) return false;
    std::size_t size = 0;
    for (int index = 3; index >= 0; --index) size = size << 8 | bytes_[at_ + static_cast<std::size_t>(index)];
    at_ += 4;
    if (bytes_.size() - at_ < size) return false;
    copy_.assign(bytes_.data() + at_, bytes_.data() + at_ + size);  // of its own size: a sanitizer sees every step too far
    copy_.shrink_to_fit();
    *record = Bytes(copy_);
    at_ += size;
    return true;
  }

 private:
  const Buffer& bytes_;
  std::size_t at_ = 0;
  Buffer copy_;
};

// One object of each message, used over and over as a client does.
struct Decoders {
#define WORLDWIRE_MEMBER(M) M member_##M;
  WORLDWIRE_MESSAGES(WORLDWIRE_MEMBER)
#undef WORLDWIRE_MEMBER

  bool accepts(Bytes head) {
    std::string_view type;
    if (!type_of(head, &type)) return false;
#define WORLDWIRE_DECODE(M) \
  if (type == M::kType) return decode(head, member_##M) == Result::ok;
    WORLDWIRE_MESSAGES(WORLDWIRE_DECODE)
#undef WORLDWIRE_DECODE
    return false;
  }
};

void print_report(std::int64_t cases, std::int64_t refused, std::int64_t began_ns, std::int64_t growth_kib) {
  std::printf("{\"cases\": %lld, \"refused\": %lld, \"accepted\": %lld, \"seconds\": %.3f, \"growth_kib\": %lld}\n",
              static_cast<long long>(cases), static_cast<long long>(refused), static_cast<long long>(cases - refused),
              static_cast<double>(now_ns() - began_ns) / 1e9, static_cast<long long>(growth_kib));
}

// ------------------------------------------------------------------------------------ a stream of bytes

constexpr std::uint8_t kGreeting[64] = {0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 1, 'N', 'U', 'L', 'L'};
constexpr std::uint8_t kReady[] = {4, 28, 5, 'R', 'E', 'A', 'D', 'Y', 11, 'S', 'o', 'c', 'k', 'e', 't', '-',
                                   'T', 'y', 'p', 'e', 0, 0, 0, 6, 'R', 'O', 'U', 'T', 'E', 'R'};

// xorshift: the same numbers everywhere.
class Random {
 public:
  std::uint32_t below(std::uint32_t limit) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<std::uint32_t>(state_ >> 32) % limit;
  }

 private:
  std::uint64_t state_ = 0x9e3779b97f4a7c15u;
};

// What the socket below hands out; one test at a time.
Buffer stream;
std::size_t stream_at = 0;
std::vector<std::size_t> stream_pauses;  // places behind which nothing comes before the client had its say
Random stream_random;

// A peer that has said all of `stream` and then goes; it hands it out in pieces.
class StreamSocket final : public Socket {
 public:
  Result connect(const char*, std::uint16_t) override { return Result::ok; }
  Result progress() override { return Result::ok; }
  Result send(const std::uint8_t*, std::size_t size, std::size_t* moved) override {
    *moved = size;
    return Result::ok;
  }
  Result receive(std::uint8_t* data, std::size_t size, std::size_t* moved) override {
    *moved = 0;
    if (stream_at == stream.size()) return Result::closed;
    if (!stream_pauses.empty() && stream_at == stream_pauses.front()) {
      stream_pauses.erase(stream_pauses.begin());
      return Result::would_block;
    }
    const std::size_t piece = 1 + stream_random.below(stream_random.below(2) == 0 ? 16 : 100000);
    *moved = piece < size ? piece : size;
    const std::size_t end = stream_pauses.empty() ? stream.size() : stream_pauses.front();
    if (*moved > end - stream_at) *moved = end - stream_at;
    std::memcpy(data, stream.data() + stream_at, *moved);
    stream_at += *moved;
    return Result::ok;
  }
  void wait(bool, int) override {}
  void close() override {}
};

std::unique_ptr<Socket> make_stream_socket() { return std::make_unique<StreamSocket>(); }

void append(const std::uint8_t* data, std::size_t size) { stream.insert(stream.end(), data, data + size); }

void append_frame(std::uint8_t flags, Bytes body) {
  const std::uint8_t head[9] = {static_cast<std::uint8_t>(flags | 2u), 0, 0, 0, 0,
                                static_cast<std::uint8_t>(body.size >> 24), static_cast<std::uint8_t>(body.size >> 16),
                                static_cast<std::uint8_t>(body.size >> 8), static_cast<std::uint8_t>(body.size)};
  append(head, sizeof head);
  append(body.data, body.size);
}

// A welcome and an opened session first, so that the messages behind them find something to disturb.
void append_first_words(Buffer& head) {
  stream_pauses = {stream.size()};
  Welcome welcome;
  welcome.request = 1;
  welcome.version = kVersion;
  welcome.world.width = welcome.world.height = 8;
  welcome.world.frames_per_second = 16;
  welcome.world.frames_per_step = 4;
  encode(welcome, head);
  append_frame(0, Bytes(head));
  stream_pauses.push_back(stream.size());
  Opened opened;
  opened.request = 2;
  opened.session = 1;
  opened.frames_per_step = 4;
  opened.format = "rgb";
  encode(opened, head);
  append_frame(0, Bytes(head));
}

constexpr int kRecordsPerStream = 100;
constexpr int kMostPolls = 100000;

void fill_stream(Records& records, std::int64_t* cases) {
  Buffer head;
  Bytes record;
  stream.clear();
  stream_at = 0;
  append(kGreeting, sizeof kGreeting);
  append(kReady, sizeof kReady);
  append_first_words(head);
  const std::uint8_t pixels[8 * 8 * 3] = {};
  for (int count = 0; count < kRecordsPerStream && records.next(&record); ++count, ++*cases) {
    const bool with_payload = stream_random.below(2) == 0;
    append_frame(with_payload ? 1 : 0, record);
    if (with_payload) append_frame(0, Bytes(pixels, stream_random.below(sizeof pixels + 1)));
  }
  // Every third stream is broken as ZMTP, too.
  for (std::uint32_t flips = stream_random.below(3) == 0 ? 8 : 0; flips > 0; --flips) {
    stream[stream_random.below(static_cast<std::uint32_t>(stream.size()))] ^= 1u << stream_random.below(8);
  }
}

// What is left over of one stream.
struct Played {
  std::int64_t refused = 0, frames = 0;
};

void play_stream(Played* played) {
  ClientOptions options;
  options.make_socket = make_stream_socket;
  options.reconnect = false;
  Client client(std::move(options));
  Session* session = client.open({});  // its hello is request 1, its open request 2
  for (int polls = 0; polls < kMostPolls && client.state() != State::failed; ++polls) {
    client.poll(0);
    session->take_newest_frame();
  }
  played->refused += client.unreadable();
  played->frames += session->figures().received;
}

}  // namespace

int run_fuzz(const Arguments& arguments) {
  const Buffer bytes = read_file(arguments[0]);
  Records records(bytes);
  Decoders decoders;
  Bytes record;
  std::int64_t cases = 0, refused = 0, before_kib = 0;
  const std::int64_t began = now_ns();
  while (records.next(&record)) {
    if (++cases == 1000) before_kib = resident_kib();
    refused += decoders.accepts(record) ? 0 : 1;
  }
  print_report(cases, refused, began, before_kib == 0 ? 0 : resident_kib() - before_kib);
  return 0;
}

int run_fuzz_stream(const Arguments& arguments) {
  const Buffer bytes = read_file(arguments[0]);
  Records records(bytes);
  Played played;
  std::int64_t cases = 0, before_kib = 0, before = -1;
  const std::int64_t began = now_ns();
  while (before != cases) {
    before = cases;
    fill_stream(records, &cases);
    play_stream(&played);
    if (before_kib == 0) before_kib = resident_kib();
  }
  print_report(cases, played.refused, began, resident_kib() - before_kib);
  if (played.frames == 0) std::fputs("no frame got through: this tested little\n", stderr);
  return played.frames == 0 ? 1 : 0;
}
