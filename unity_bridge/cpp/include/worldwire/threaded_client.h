// A client that a thread of its own polls, for programs whose main loop may stall. Frames are taken and inputs sent
// from any thread:
//
//   worldwire::ThreadedClient threaded({"tcp://127.0.0.1:5555"});
//   worldwire::Session* session = threaded.lock()->open({});
//   ...
//   if (auto client = threaded.lock()) { session->send_input(input); frame = session->take_frame(); }
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

#include "worldwire/client.h"

namespace worldwire {

class ThreadedClient {
 public:
  // The client, for as long as this lives; the thread waits meanwhile, so let go soon. Do not call poll, connect
  // or close on it. What is sent leaves when it is let go, within kWaitMs.
  class Access {
   public:
    Client* operator->() const { return client_; }
    Client& operator*() const { return *client_; }
    explicit operator bool() const { return client_ != nullptr; }

   private:
    friend class ThreadedClient;
    Access(Client* client, std::mutex& mutex) : lock_(mutex), client_(client) {}
    std::unique_lock<std::mutex> lock_;
    Client* client_;
  };

  // `listener` is called from the thread.
  explicit ThreadedClient(ClientOptions options, Listener* listener = nullptr);
  ~ThreadedClient();  // says goodbye and joins the thread
  ThreadedClient(const ThreadedClient&) = delete;
  ThreadedClient& operator=(const ThreadedClient&) = delete;

  Access lock() { return Access(&client_, mutex_); }

 private:
  static constexpr int kWaitMs = 2;

  void run();

  std::mutex mutex_;
  Client client_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace worldwire
