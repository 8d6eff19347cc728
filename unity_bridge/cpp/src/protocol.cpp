#include "worldwire/protocol.h"

#include <cmath>
#include <type_traits>

#include "worldwire/msgpack.h"

namespace worldwire {
namespace {

bool within(Span span, std::int64_t value) { return value >= span.low && value <= span.high; }
// A span without limits allows every finite real, those beyond 64 bits too.
bool allowed(Span span, double value) {
  if (span.low == kAny.low && span.high == kAny.high) return std::isfinite(value);
  return value >= static_cast<double>(span.low) && value <= static_cast<double>(span.high);
}
Span entries(Span list) { return {list.entries_high == kAny.high ? kAny.low : 0, list.entries_high}; }

// Maps inside of messages, which name their fields like messages do.
template <class T>
using IfPart = decltype(T::kIsMap);

// ------------------------------------------------------------------------------------ writing

template <class M>
bool write_fields(const M& message, MsgpackWriter& out, std::string_view type, Fault* fault);

bool write(std::int64_t value, Span span, MsgpackWriter& out) {
  out.integer(value);
  return within(span, value);
}
bool write(double value, Span span, MsgpackWriter& out) {
  out.real(value);
  return allowed(span, value);
}
bool write(bool value, Span, MsgpackWriter& out) {
  out.boolean(value);
  return true;
}
bool write(std::string_view value, Span span, MsgpackWriter& out) {
  std::size_t characters = 0;
  out.text(value);
  return count_characters(value, &characters) && within(span, static_cast<std::int64_t>(characters));
}
bool write(const PackedMap& value, Span, MsgpackWriter& out) {
  if (value.bytes.empty()) {
    out.map(0);
  } else {
    out.raw(value.bytes);
  }
  return true;
}
bool write(const std::vector<Timing>& timings, Span, MsgpackWriter& out) {
  bool fine = true;
  out.map(timings.size());
  for (const Timing& timing : timings) {
    fine &= write(timing.stage, kAny, out);
    fine &= write(timing.ms, kAny, out);
  }
  return fine;
}
template <class T, std::size_t N>
bool write(const std::array<T, N>& values, Span span, MsgpackWriter& out) {
  bool fine = true;
  out.list(N);
  for (const T& value : values) fine &= write(value, span, out);
  return fine;
}
template <class M, class = IfPart<M>>
bool write(const M& part, Span, MsgpackWriter& out) {
  return write_fields(part, out, {}, nullptr);
}
template <class T>
bool write(const std::vector<T>& values, Span span, MsgpackWriter& out) {
  bool fine = within(span, static_cast<std::int64_t>(values.size()));
  out.list(values.size());
  for (const T& value : values) fine &= write(value, entries(span), out);
  return fine;
}

template <class T>
bool is_present(const T&) {
  return true;
}
template <class T>
bool is_present(const std::optional<T>& value) {
  return value.has_value();
}
template <class T>
const T& plain(const T& value) {
  return value;
}
template <class T>
const T& plain(const std::optional<T>& value) {
  return *value;
}

template <class M>
struct FieldCounter {
  const M& message;
  std::size_t count = 0;

  template <class C, class T>
  void required(const char*, T C::*, Span) {
    ++count;
  }
  template <class C, class T>
  void optional(const char*, T C::*member, Span) {
    count += is_present(message.*member) ? 1 : 0;
  }
};

template <class M>
struct FieldWriter {
  const M& message;
  MsgpackWriter& out;
  const char* wrong = nullptr;

  template <class C, class T>
  void required(const char* name, T C::*member, Span span) {
    optional(name, member, span);
  }
  template <class C, class T>
  void optional(const char* name, T C::*member, Span span) {
    const auto& value = message.*member;
    if (!is_present(value)) return;
    out.text(name);
    if (!write(plain(value), span, out) && wrong == nullptr) wrong = name;
  }
};

template <class M>
bool write_fields(const M& message, MsgpackWriter& out, std::string_view type, Fault* fault) {
  FieldCounter<M> counter{message};
  M::fields(counter);
  out.map(counter.count + (type.empty() ? 0 : 1));
  if (!type.empty()) {
    out.text("type");
    out.text(type);
  }
  FieldWriter<M> writer{message, out};
  M::fields(writer);
  if (writer.wrong != nullptr && fault != nullptr) fault->where = writer.wrong;
  return writer.wrong == nullptr;
}

// ------------------------------------------------------------------------------------ reading

template <class M>
bool read_fields(MsgpackReader& in, M& message, Fault* fault);

bool read(MsgpackReader& in, std::int64_t& value, Span span) { return in.integer(&value) && within(span, value); }
bool read(MsgpackReader& in, double& value, Span span) { return in.real(&value) && allowed(span, value); }
bool read(MsgpackReader& in, bool& value, Span) { return in.boolean(&value); }
bool read(MsgpackReader& in, std::string_view& value, Span span) {
  std::size_t characters = 0;
  if (!in.text(&value)) return false;
  return value.size() <= static_cast<std::size_t>(span.high) ||  // no more characters than bytes
         (count_characters(value, &characters) && within(span, static_cast<std::int64_t>(characters)));
}
bool read(MsgpackReader& in, PackedMap& value, Span) {
  return in.peek() == MsgpackReader::Kind::map && in.skip(&value.bytes);
}
bool read(MsgpackReader& in, std::vector<Timing>& timings, Span) {
  std::size_t count = 0;
  if (!in.map(&count)) return false;
  timings.clear();
  for (; count > 0; --count) {
    Timing timing;
    if (!read(in, timing.stage, kAny) || !read(in, timing.ms, kAny)) return false;
    timings.push_back(timing);
  }
  return true;
}
template <class T, std::size_t N>
bool read(MsgpackReader& in, std::array<T, N>& values, Span span) {
  std::size_t count = 0;
  if (!in.list(&count) || count != N) return false;
  for (T& value : values) {
    if (!read(in, value, span)) return false;
  }
  return true;
}
template <class T>
bool read(MsgpackReader& in, std::optional<T>& value, Span span) {
  return read(in, value.emplace(), span);
}
template <class M, class = IfPart<M>>
bool read(MsgpackReader& in, M& part, Span) {
  return read_fields(in, part, nullptr);
}
template <class T>
bool read(MsgpackReader& in, std::vector<T>& values, Span span) {
  std::size_t count = 0;
  if (!in.list(&count) || !within(span, static_cast<std::int64_t>(count))) return false;
  values.clear();
  for (; count > 0; --count) {  // grows with the bytes that are there, never with the count that they claim
    if (!read(in, values.emplace_back(), entries(span))) return false;
  }
  return true;
}

// Reads the value that follows into the field called `name`, if there is one.
template <class M>
struct FieldReader {
  MsgpackReader& in;
  M& message;
  std::string_view name;
  std::uint32_t bit = 1;
  std::uint32_t seen = 0;
  const char* wrong = nullptr;
  bool known = false;

  template <class C, class T>
  void required(const char* field, T C::*member, Span span) {
    optional(field, member, span);
  }
  template <class C, class T>
  void optional(const char* field, T C::*member, Span span) {
    if (!known && name == field) {
      known = true;
      seen = bit;
      if (!read(in, message.*member, span)) wrong = field;
    }
    bit <<= 1;
  }
};

// Gives fields that did not come their defaults, and finds a required one among them.
template <class M>
struct FieldFinisher {
  M& message;
  const M& defaults;
  std::uint32_t seen;
  std::uint32_t bit = 1;
  const char* absent = nullptr;

  template <class C, class T>
  void required(const char* field, T C::*, Span) {
    if ((seen & bit) == 0 && absent == nullptr) absent = field;
    bit <<= 1;
  }
  template <class C, class T>
  void optional(const char*, T C::*member, Span) {
    if ((seen & bit) == 0) message.*member = defaults.*member;
    bit <<= 1;
  }
};

bool fail(Fault* fault, const char* where) {
  if (fault != nullptr) fault->where = where;
  return false;
}

template <class M>
bool read_fields(MsgpackReader& in, M& message, Fault* fault) {
  static const M defaults{};
  std::size_t entries = 0;
  std::uint32_t seen = 0;
  if (!in.map(&entries)) return fail(fault, "no map");
  for (; entries > 0; --entries) {
    std::string_view name;
    if (!in.text(&name)) return fail(fault, "a key that is no text");
    if (in.nil()) continue;
    FieldReader<M> reader{in, message, name};
    M::fields(reader);
    if (reader.wrong != nullptr) return fail(fault, reader.wrong);
    if (!reader.known && !in.skip()) return fail(fault, "bytes that are no msgpack");
    seen |= reader.seen;
  }
  FieldFinisher<M> finisher{message, defaults, seen};
  M::fields(finisher);
  return finisher.absent == nullptr || fail(fault, finisher.absent);
}

// Finds the value of `wanted` in the map of part 0, and leaves `in` in front of it.
bool find(Bytes head, std::string_view wanted, MsgpackReader* in) {
  std::size_t entries = 0;
  std::string_view name;
  if (head.size > kMaxHeadBytes || !in->map(&entries)) return false;
  for (; entries > 0; --entries) {
    if (!in->text(&name)) return false;
    if (name == wanted) return true;
    if (!in->skip()) return false;
  }
  return false;
}

}  // namespace

const char* name_of(Result result) {
  switch (result) {
    case Result::ok: return "ok";
    case Result::would_block: return "would_block";
    case Result::timed_out: return "timed_out";
    case Result::not_ready: return "not_ready";
    case Result::bad_address: return "bad_address";
    case Result::nothing_listens: return "nothing_listens";
    case Result::unreachable: return "unreachable";
    case Result::closed: return "closed";
    case Result::loading: return "loading";
    case Result::stalled: return "stalled";
    case Result::not_worldwire: return "not_worldwire";
    case Result::wrong_key: return "wrong_key";
    case Result::bad_message: return "bad_message";
    case Result::version_mismatch: return "version_mismatch";
    case Result::bad_argument: return "bad_argument";
    case Result::refused: return "refused";
    case Result::busy: return "busy";
    case Result::missing_libzmq: return "missing_libzmq";
  }
  return "unknown";
}

bool version_fits(const std::array<std::int64_t, 2>& theirs) { return theirs[0] == kVersion[0]; }

bool version_of(Bytes head, std::array<std::int64_t, 2>* version) {
  MsgpackReader in(head);
  return find(head, "version", &in) && read(in, *version, kCount);
}

bool type_of(Bytes head, std::string_view* type) {
  MsgpackReader in(head);
  return find(head, "type", &in) && in.text(type);
}

template <class M>
Result encode(const M& message, Buffer& out, Fault* fault) {
  out.clear();
  MsgpackWriter writer(out);
  const bool fine = write_fields(message, writer, M::kType, fault) && out.size() <= kMaxHeadBytes;
  return fine ? Result::ok : Result::bad_argument;
}

template <class M>
Result decode(Bytes head, M& message, Fault* fault) {
  std::string_view type;
  if (!type_of(head, &type) || type != M::kType) {
    fail(fault, "type");
    return Result::bad_message;
  }
  if constexpr (std::is_same_v<M, Hello>) {
    std::array<std::int64_t, 2> version = {0, 0};
    if (!version_of(head, &version) || !version_fits(version)) return Result::version_mismatch;
  }
  MsgpackReader in(head);
  const bool fine = read_fields(in, message, fault) && (in.at_end() || fail(fault, "trailing bytes"));
  return fine ? Result::ok : Result::bad_message;
}

#define WORLDWIRE_INSTANTIATE(M)                         \
  template Result encode(const M&, Buffer&, Fault*);     \
  template Result decode(Bytes, M&, Fault*);
WORLDWIRE_MESSAGES(WORLDWIRE_INSTANTIATE)
#undef WORLDWIRE_INSTANTIATE

}  // namespace worldwire
