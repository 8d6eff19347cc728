// Decodes golden vectors, and prints as JSON what was read and what it is encoded to again.
#include <cstdio>
#include <type_traits>

#include "probe.h"
#include "worldwire/protocol.h"

using namespace worldwire;

namespace {

std::string hex(Bytes bytes) {
  std::string out;
  for (std::size_t index = 0; index < bytes.size; ++index) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", bytes.data[index]);
    out += digits;
  }
  return out;
}

// ------------------------------------------------------------------------------------ JSON of fields

void print(std::string& out, std::int64_t value) { out += std::to_string(value); }
void print(std::string& out, bool value) { out += value ? "true" : "false"; }
void print(std::string& out, double value) {
  char digits[40];
  std::snprintf(digits, sizeof digits, "%.17g", value);
  out += digits;
  if (out.find_first_of(".e", out.size() - std::char_traits<char>::length(digits)) == std::string::npos) out += ".0";
}
void print(std::string& out, std::string_view value) {
  out += '"';
  for (const char letter : value) {
    char escape[8];
    const bool plain = static_cast<unsigned char>(letter) >= 0x20 && letter != '"' && letter != '\\';
    std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned char>(letter));
    out += plain ? std::string(1, letter) : escape;
  }
  out += '"';
}
void print(std::string& out, const PackedMap& value) { out += "{\"packed\": \"" + hex(value.bytes) + "\"}"; }
void print(std::string& out, const std::vector<Timing>& timings) {
  out += '{';
  for (const Timing& timing : timings) {
    if (out.back() != '{') out += ", ";
    print(out, timing.stage);
    out += ": ";
    print(out, timing.ms);
  }
  out += '}';
}

template <class M>
void print_fields(std::string& out, const M& message);

template <class List>
void print_list(std::string& out, const List& values);
template <class T, std::size_t N>
void print(std::string& out, const std::array<T, N>& values) {
  print_list(out, values);
}
template <class T>
void print(std::string& out, const std::vector<T>& values) {
  print_list(out, values);
}
template <class M, class = decltype(M::kIsMap)>
void print(std::string& out, const M& part) {
  print_fields(out, part);
}
template <class List>
void print_list(std::string& out, const List& values) {
  out += '[';
  for (const auto& value : values) {
    if (out.back() != '[') out += ", ";
    print(out, value);
  }
  out += ']';
}

template <class M>
struct JsonFields {
  const M& message;
  std::string& out;

  template <class C, class T>
  void required(const char* name, T C::*member, Span span) {
    optional(name, member, span);
  }
  template <class C, class T>
  void optional(const char* name, T C::*member, Span) {
    put(name, message.*member);
  }
  template <class T>
  void put(const char* name, const T& value) {
    if (out.back() != '{') out += ", ";
    print(out, std::string_view(name));
    out += ": ";
    print(out, value);
  }
  template <class T>
  void put(const char* name, const std::optional<T>& value) {
    if (value) put(name, *value);
  }
};

template <class M>
void print_fields(std::string& out, const M& message) {
  out += '{';
  JsonFields<M> fields{message, out};
  M::fields(fields);
  out += '}';
}

// ------------------------------------------------------------------------------------ vectors

template <class M>
std::string report(Bytes head) {
  M message;
  Fault fault;
  std::string out = "{\"type\": \"" + std::string(M::kType) + "\", \"result\": \"";
  const Result result = decode(head, message, &fault);
  out += name_of(result);
  out += "\"";
  if (result != Result::ok) return out + ", \"where\": \"" + fault.where + "\"}";
  Buffer again;
  const Result encoding = encode(message, again);
  out += ", \"encoding\": \"" + std::string(name_of(encoding)) + "\", \"encoded\": \"" + hex(again);
  out += "\", \"fields\": ";
  print_fields(out, message);
  return out + "}";
}

std::string report_any(Bytes head) {
  std::string_view type;
  if (!type_of(head, &type)) return "{\"result\": \"bad_message\", \"where\": \"type\"}";
#define WORLDWIRE_REPORT(M) \
  if (type == M::kType) return report<M>(head);
  WORLDWIRE_MESSAGES(WORLDWIRE_REPORT)
#undef WORLDWIRE_REPORT
  return "{\"result\": \"bad_message\", \"where\": \"unknown type\"}";
}

}  // namespace

int run_vectors(const Arguments& files) {
  for (const std::string& file : files) std::printf("%s\n", report_any(read_file(file)).c_str());
  return 0;
}
