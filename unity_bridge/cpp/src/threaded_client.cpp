#include "worldwire/threaded_client.h"

namespace worldwire {

ThreadedClient::ThreadedClient(ClientOptions options, Listener* listener)
    : client_(std::move(options), listener), thread_(&ThreadedClient::run, this) {}

ThreadedClient::~ThreadedClient() {
  stop_ = true;
  thread_.join();
}

void ThreadedClient::run() {
  while (!stop_) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      client_.poll(0);
    }
    client_.wait(kWaitMs);
  }
}

}  // namespace worldwire
