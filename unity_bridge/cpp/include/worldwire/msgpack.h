// The part of msgpack that the protocol needs: a writer into a buffer that is used again, and a reader that
// trusts nothing. Neither allocates on its own account.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "worldwire/bytes.h"

namespace worldwire {

// Appends to `out`; whole numbers in their shortest form, reals as float 64.
class MsgpackWriter {
 public:
  explicit MsgpackWriter(Buffer& out) : out_(out) {}

  void map(std::size_t entries);
  void list(std::size_t entries);
  void text(std::string_view value);
  void integer(std::int64_t value);
  void real(double value);
  void boolean(bool value);
  void raw(Bytes packed);  // one value that is packed already

 private:
  void head(std::size_t count, std::uint8_t fixed, std::size_t fixed_limit, std::uint8_t head16);
  void big_endian(std::uint64_t value, int bytes);

  Buffer& out_;
};

// Reads values one after another. Every method returns false at the first byte that does not fit, and the reader
// is of no use afterwards. Texts are views into the bytes that are read.
class MsgpackReader {
 public:
  enum class Kind : std::uint8_t { nil, boolean, integer, real, text, binary, list, map, extension, invalid };

  explicit MsgpackReader(Bytes bytes) : begin_(bytes.data), next_(bytes.data), end_(bytes.data + bytes.size) {}

  // The kind of the next value; `invalid` at the end.
  Kind peek() const;
  bool map(std::size_t* entries);
  bool list(std::size_t* entries);
  bool text(std::string_view* value);    // well-formed UTF-8 only
  bool integer(std::int64_t* value);     // false beyond 64 bits with a sign
  bool real(double* value);              // takes whole numbers, too; may give NaN or an infinity
  bool boolean(bool* value);
  bool nil();
  // Steps over one value of any kind, checking it on the way; `raw` gets its bytes.
  bool skip(Bytes* raw = nullptr);
  bool at_end() const { return next_ == end_; }

 private:
  std::size_t left() const { return static_cast<std::size_t>(end_ - next_); }
  bool take(std::size_t count, const std::uint8_t** first);
  bool big_endian(int bytes, std::uint64_t* value);
  bool length(int bytes, std::size_t* count);
  bool count_of(std::uint8_t fixed, std::uint8_t mask, std::uint8_t head16, std::size_t* count);
  bool skip_one(std::uint64_t* waiting);
  bool skip_sized(std::uint8_t head);

  const std::uint8_t* begin_;
  const std::uint8_t* next_;
  const std::uint8_t* end_;
};

// How many characters (code points) well-formed UTF-8 holds; false if it is not well-formed.
bool count_characters(std::string_view text, std::size_t* characters);

}  // namespace worldwire
