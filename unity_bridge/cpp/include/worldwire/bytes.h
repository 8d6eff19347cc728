// A view of bytes that somebody else owns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace worldwire {

struct Bytes {
  const std::uint8_t* data = nullptr;
  std::size_t size = 0;

  Bytes() = default;
  Bytes(const std::uint8_t* first, std::size_t count) : data(first), size(count) {}
  Bytes(const std::vector<std::uint8_t>& owner) : data(owner.data()), size(owner.size()) {}
  bool empty() const { return size == 0; }
};

using Buffer = std::vector<std::uint8_t>;

}  // namespace worldwire
