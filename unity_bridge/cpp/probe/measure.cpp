#include <cstdio>
#include <cstdlib>
#include <atomic>

#include "probe.h"

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
#define WORLDWIRE_COUNTS_ALLOCATIONS 1
#endif

worldwire::Buffer read_file(const std::string& path) {
  worldwire::Buffer bytes;
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return bytes;
  std::uint8_t chunk[65536];
  for (std::size_t count; (count = std::fread(chunk, 1, sizeof chunk, file)) > 0;) {
    bytes.insert(bytes.end(), chunk, chunk + count);
  }
  std::fclose(file);
  return bytes;
}

std::int64_t resident_kib() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  long total = 0, resident = 0;
  const int read = std::fscanf(file, "%ld %ld", &total, &resident);
  std::fclose(file);
  constexpr long kPageKib = 4;
  return read == 2 ? resident * kPageKib : 0;
}

#ifdef WORLDWIRE_COUNTS_ALLOCATIONS
namespace {
std::atomic<std::int64_t> counted{0};
}

// The program's own malloc: it counts, and lets glibc do the work.
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* old, std::size_t size);

void* malloc(std::size_t size) {
  counted.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  counted.fetch_add(1, std::memory_order_relaxed);
  return __libc_calloc(count, size);
}
void* realloc(void* old, std::size_t size) {
  counted.fetch_add(1, std::memory_order_relaxed);
  return __libc_realloc(old, size);
}
}

std::int64_t allocations() { return counted.load(); }
#else
std::int64_t allocations() { return -1; }
#endif
