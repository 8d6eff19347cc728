#include "worldwire/msgpack.h"

#include <cstring>
#include <limits>

namespace worldwire {
namespace {

// First bytes, as the msgpack specification names them.
constexpr std::uint8_t kNil = 0xc0, kFalse = 0xc2, kTrue = 0xc3;
constexpr std::uint8_t kBin8 = 0xc4, kBin32 = 0xc6, kExt8 = 0xc7, kExt32 = 0xc9;
constexpr std::uint8_t kFloat32 = 0xca, kFloat64 = 0xcb;
constexpr std::uint8_t kUnsigned8 = 0xcc, kUnsigned64 = 0xcf, kSigned8 = 0xd0, kSigned64 = 0xd3;
constexpr std::uint8_t kFixExt1 = 0xd4, kFixExt16 = 0xd8, kStr8 = 0xd9, kStr16 = 0xda, kStr32 = 0xdb;
constexpr std::uint8_t kList16 = 0xdc, kList32 = 0xdd, kMap16 = 0xde, kMap32 = 0xdf;
constexpr std::uint8_t kFixMap = 0x80, kFixList = 0x90, kFixStr = 0xa0, kNegativeFixInt = 0xe0;

bool is_fixed_text(std::uint8_t head) { return (head & 0xe0) == kFixStr; }
bool is_fixed_list(std::uint8_t head) { return (head & 0xf0) == kFixList; }
bool is_fixed_map(std::uint8_t head) { return (head & 0xf0) == kFixMap; }

// The length of the UTF-8 sequence that begins at `text[at]`, 0 if it is ill-formed (Unicode, table 3-7).
std::size_t sequence_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t offset) -> unsigned {
    return at + offset < text.size() ? static_cast<std::uint8_t>(text[at + offset]) : 0u;
  };
  const auto follows = [&](std::size_t offset) { return (byte(offset) & 0xc0u) == 0x80u; };
  const unsigned first = byte(0), second = byte(1);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return follows(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    const bool overlong = first == 0xe0 && second < 0xa0, surrogate = first == 0xed && second > 0x9f;
    return !overlong && !surrogate && follows(1) && follows(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const bool overlong = first == 0xf0 && second < 0x90, beyond = first == 0xf4 && second > 0x8f;
    return !overlong && !beyond && follows(1) && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

bool count_characters(std::string_view text, std::size_t* characters) {
  *characters = 0;
  for (std::size_t at = 0; at < text.size(); ++*characters) {
    const std::size_t length = sequence_length(text, at);
    if (length == 0) return false;
    at += length;
  }
  return true;
}

// ------------------------------------------------------------------------------------------------ writer

void MsgpackWriter::big_endian(std::uint64_t value, int bytes) {
  for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) out_.push_back(static_cast<std::uint8_t>(value >> shift));
}

void MsgpackWriter::head(std::size_t count, std::uint8_t fixed, std::size_t fixed_limit, std::uint8_t head16) {
  if (count < fixed_limit) {
    out_.push_back(static_cast<std::uint8_t>(fixed | count));
  } else if (count <= 0xffff) {
    out_.push_back(head16);
    big_endian(count, 2);
  } else {
    out_.push_back(static_cast<std::uint8_t>(head16 + 1));
    big_endian(count, 4);
  }
}

void MsgpackWriter::map(std::size_t entries) { head(entries, kFixMap, 16, kMap16); }
void MsgpackWriter::list(std::size_t entries) { head(entries, kFixList, 16, kList16); }

void MsgpackWriter::text(std::string_view value) {
  if (value.size() >= 32 && value.size() <= 0xff) {
    out_.push_back(kStr8);
    big_endian(value.size(), 1);
  } else {
    head(value.size(), kFixStr, 32, kStr16);
  }
  const auto* first = reinterpret_cast<const std::uint8_t*>(value.data());
  out_.insert(out_.end(), first, first + value.size());
}

void MsgpackWriter::integer(std::int64_t value) {
  const bool negative = value < 0;
  if (value >= -32 && value <= 127) {
    out_.push_back(static_cast<std::uint8_t>(value));
    return;
  }
  // The magnitude that a signed form of so many bytes must hold, or the value itself for an unsigned form.
  const auto bits = static_cast<std::uint64_t>(value);
  const std::uint64_t needed = negative ? static_cast<std::uint64_t>(-(value + 1)) * 2 + 1 : bits;
  const int size = needed <= 0xff ? 0 : needed <= 0xffff ? 1 : needed <= 0xffffffff ? 2 : 3;
  out_.push_back(static_cast<std::uint8_t>((negative ? kSigned8 : kUnsigned8) + size));
  big_endian(bits, 1 << size);
}

void MsgpackWriter::real(double value) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  out_.push_back(kFloat64);
  big_endian(bits, 8);
}

void MsgpackWriter::boolean(bool value) { out_.push_back(value ? kTrue : kFalse); }

void MsgpackWriter::raw(Bytes packed) { out_.insert(out_.end(), packed.data, packed.data + packed.size); }

// ------------------------------------------------------------------------------------------------ reader

MsgpackReader::Kind MsgpackReader::peek() const {
  if (next_ == end_) return Kind::invalid;
  const std::uint8_t head = *next_;
  if (head < kFixMap || head >= kNegativeFixInt) return Kind::integer;
  if (is_fixed_map(head) || head == kMap16 || head == kMap32) return Kind::map;
  if (is_fixed_list(head) || head == kList16 || head == kList32) return Kind::list;
  if (is_fixed_text(head) || (head >= kStr8 && head <= kStr32)) return Kind::text;
  if (head == kNil) return Kind::nil;
  if (head == kFalse || head == kTrue) return Kind::boolean;
  if (head >= kBin8 && head <= kBin32) return Kind::binary;
  if (head == kFloat32 || head == kFloat64) return Kind::real;
  if (head >= kUnsigned8 && head <= kSigned64) return Kind::integer;
  const bool extension = (head >= kExt8 && head <= kExt32) || (head >= kFixExt1 && head <= kFixExt16);
  return extension ? Kind::extension : Kind::invalid;
}

bool MsgpackReader::take(std::size_t count, const std::uint8_t** first) {
  if (left() < count) return false;
  *first = next_;
  next_ += count;
  return true;
}

bool MsgpackReader::big_endian(int bytes, std::uint64_t* value) {
  const std::uint8_t* first = nullptr;
  if (!take(static_cast<std::size_t>(bytes), &first)) return false;
  *value = 0;
  for (int index = 0; index < bytes; ++index) *value = *value << 8 | first[index];
  return true;
}

bool MsgpackReader::length(int bytes, std::size_t* count) {
  std::uint64_t value = 0;
  if (!big_endian(bytes, &value)) return false;
  *count = static_cast<std::size_t>(value);
  return true;
}

bool MsgpackReader::count_of(std::uint8_t fixed, std::uint8_t mask, std::uint8_t head16, std::size_t* count) {
  const std::uint8_t head = *next_++;
  if ((head & mask) == fixed) {
    *count = static_cast<std::size_t>(head & static_cast<std::uint8_t>(~mask));
    return true;
  }
  return length(head == head16 ? 2 : 4, count);
}

bool MsgpackReader::map(std::size_t* entries) {
  return peek() == Kind::map && count_of(kFixMap, 0xf0, kMap16, entries);
}

bool MsgpackReader::list(std::size_t* entries) {
  return peek() == Kind::list && count_of(kFixList, 0xf0, kList16, entries);
}

bool MsgpackReader::text(std::string_view* value) {
  if (peek() != Kind::text) return false;
  const std::uint8_t head = *next_++;
  std::size_t count = head & 0x1fu, characters = 0;
  if (!is_fixed_text(head) && !length(1 << (head - kStr8), &count)) return false;
  const std::uint8_t* first = nullptr;
  if (!take(count, &first)) return false;
  *value = std::string_view(reinterpret_cast<const char*>(first), count);
  return count_characters(*value, &characters);
}

bool MsgpackReader::integer(std::int64_t* value) {
  if (peek() != Kind::integer) return false;
  const std::uint8_t head = *next_++;
  if (head < kFixMap || head >= kNegativeFixInt) {
    *value = static_cast<std::int8_t>(head);
    return true;
  }
  std::uint64_t bits = 0;
  if (head <= kUnsigned64) {
    if (!big_endian(1 << (head - kUnsigned8), &bits)) return false;
    *value = static_cast<std::int64_t>(bits);
    return bits <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  }
  const int bytes = 1 << (head - kSigned8);
  if (!big_endian(bytes, &bits)) return false;
  const std::uint64_t sign = std::uint64_t{1} << (bytes * 8 - 1);
  *value = static_cast<std::int64_t>((bits ^ sign) - sign);
  return true;
}

bool MsgpackReader::real(double* value) {
  if (peek() == Kind::integer) {
    std::int64_t whole = 0;
    if (!integer(&whole)) return false;
    *value = static_cast<double>(whole);
    return true;
  }
  if (peek() != Kind::real) return false;
  const bool single = *next_++ == kFloat32;
  std::uint64_t bits = 0;
  if (!big_endian(single ? 4 : 8, &bits)) return false;
  if (single) {
    const auto narrow = static_cast<std::uint32_t>(bits);
    float real32 = 0;
    std::memcpy(&real32, &narrow, sizeof real32);
    *value = static_cast<double>(real32);
  } else {
    std::memcpy(value, &bits, sizeof bits);
  }
  return true;
}

bool MsgpackReader::boolean(bool* value) {
  if (peek() != Kind::boolean) return false;
  *value = *next_++ == kTrue;
  return true;
}

bool MsgpackReader::nil() {
  if (peek() != Kind::nil) return false;
  ++next_;
  return true;
}

bool MsgpackReader::skip(Bytes* raw) {
  const std::uint8_t* first = next_;
  // No recursion: nesting only adds to the number of values that wait, and each of them needs a byte at least.
  for (std::uint64_t waiting = 1; waiting > 0; --waiting) {
    if (waiting > left() || !skip_one(&waiting)) return false;
  }
  if (raw != nullptr) *raw = Bytes(first, static_cast<std::size_t>(next_ - first));
  return true;
}

bool MsgpackReader::skip_one(std::uint64_t* waiting) {
  std::string_view text_value;
  std::int64_t whole = 0;
  std::uint64_t bits = 0;
  std::size_t entries = 0;
  double real_value = 0;
  bool truth = false;
  switch (peek()) {
    case Kind::nil: return nil();
    case Kind::boolean: return boolean(&truth);
    case Kind::real: return real(&real_value);
    case Kind::text: return text(&text_value);
    case Kind::integer:  // whole numbers beyond 63 bits are well-formed, though no field takes them
      return *next_ == kUnsigned64 ? (++next_, big_endian(8, &bits)) : integer(&whole);
    case Kind::list:
      if (!list(&entries)) return false;
      *waiting += entries;
      return true;
    case Kind::map:
      if (!map(&entries)) return false;
      *waiting += std::uint64_t{2} * entries;
      return true;
    case Kind::binary:
    case Kind::extension: return skip_sized(*next_++);
    case Kind::invalid: break;
  }
  return false;
}

bool MsgpackReader::skip_sized(std::uint8_t head) {
  const std::uint8_t* first = nullptr;
  std::size_t count = 0;
  if (head >= kFixExt1) return take((std::size_t{1} << (head - kFixExt1)) + 1, &first);
  if (head >= kExt8) return length(1 << (head - kExt8), &count) && take(1, &first) && take(count, &first);
  return length(1 << (head - kBin8), &count) && take(count, &first);
}

}  // namespace worldwire
