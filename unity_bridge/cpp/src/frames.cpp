#include "worldwire/frames.h"

namespace worldwire {
namespace {

constexpr std::string_view kFormatNames[] = {"rgb", "rgba", "bgra", "jpeg", "h264", ""};
constexpr std::size_t kFewestSlots = 3;  // one written, one held, one that waits
constexpr double kNanosecondsPerSecond = 1e9;

}  // namespace

PixelFormat pixel_format(std::string_view name) {
  std::size_t index = 0;
  while (index < static_cast<std::size_t>(PixelFormat::unknown) && kFormatNames[index] != name) ++index;
  return static_cast<PixelFormat>(index);
}

std::string_view name_of(PixelFormat format) { return kFormatNames[static_cast<std::size_t>(format)]; }

int bytes_per_pixel(PixelFormat format) {
  if (format == PixelFormat::rgb) return 3;
  return format == PixelFormat::rgba || format == PixelFormat::bgra ? 4 : 0;
}

void FrameQueue::reserve(std::size_t slots, std::size_t bytes) {
  if (lent_) return;
  bytes_ = bytes > bytes_ ? bytes : bytes_;
  const std::size_t wanted = slots < kFewestSlots ? kFewestSlots : slots;
  if (wanted > slots_.size()) grow(wanted);
  for (Slot& slot : slots_) {  // now rather than in the middle of play; slots in use follow in `begin`
    if (slot.free && slot.own.size() < bytes_) slot.own.resize(bytes_);
  }
}

void FrameQueue::grow(std::size_t slots) {
  std::vector<std::size_t> order(slots);
  for (std::size_t index = 0; index < count_; ++index) order[index] = order_[(first_ + index) % order_.size()];
  order_.swap(order);
  first_ = 0;
  slots_.resize(slots);
}

void FrameQueue::lend(std::uint8_t* const* buffers, std::size_t count, std::size_t bytes) {
  *this = FrameQueue();
  grow(count);
  bytes_ = bytes;
  for (std::size_t index = 0; index < count; ++index) slots_[index].lent = buffers[index];
  lent_ = true;
}

std::uint8_t* FrameQueue::begin(std::size_t bytes) {
  release(&writing_);
  if (slots_.empty()) reserve(kFewestSlots, bytes);
  for (std::size_t index = 0; index < slots_.size() && writing_ == kNone; ++index) {
    if (slots_[index].free) writing_ = index;
  }
  if (writing_ == kNone) {
    writing_ = pop();
    ++overruns_;
  }
  Slot& slot = slots_[writing_];
  slot.free = false;
  slot.frame.size = bytes;
  if (slot.lent != nullptr) return bytes <= bytes_ ? slot.lent : nullptr;
  if (slot.own.size() < bytes) slot.own.resize(bytes > bytes_ ? bytes : bytes_);
  return slot.own.data();
}

void FrameQueue::commit(const Frame& frame) {
  if (writing_ == kNone) return;
  Slot& slot = slots_[writing_];
  const std::size_t size = slot.frame.size;
  slot.frame = frame;
  slot.frame.size = size;
  slot.frame.pixels = slot.lent != nullptr ? slot.lent : slot.own.data();
  order_[(first_ + count_) % order_.size()] = writing_;
  ++count_;
  writing_ = kNone;
}

const Frame* FrameQueue::take() {
  if (count_ == 0) return nullptr;
  release(&held_);
  held_ = pop();
  return &slots_[held_].frame;
}

std::size_t FrameQueue::drop_all_but_newest() {
  std::size_t dropped = 0;
  for (; count_ > 1; ++dropped) slots_[pop()].free = true;
  return dropped;
}

void FrameQueue::clear() {
  while (count_ > 0) slots_[pop()].free = true;
}

std::size_t FrameQueue::take_overruns() {
  const std::size_t overruns = overruns_;
  overruns_ = 0;
  return overruns;
}

void FrameQueue::release(std::size_t* slot) {
  if (*slot != kNone) slots_[*slot].free = true;
  *slot = kNone;
}

std::size_t FrameQueue::pop() {
  const std::size_t slot = order_[first_];
  first_ = (first_ + 1) % order_.size();
  --count_;
  return slot;
}

void FrameClock::set_rate(double frames_per_second) {
  period_ns_ = frames_per_second > 0 ? static_cast<std::int64_t>(kNanosecondsPerSecond / frames_per_second) : 0;
}

void FrameClock::shown(std::int64_t now_ns) {
  const bool late = now_ns - next_ns_ > period_ns_;
  next_ns_ = (late ? now_ns : next_ns_) + period_ns_;
}

}  // namespace worldwire
