// Who is using a State: one call that writes, or calls that read.
#pragma once

#include <stdexcept>

#include "plain/threads.hpp"

namespace fast_momentum {

struct ConcurrentStepError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Changed with the GIL held. Void in a forked child, in which the thread that set it does not exist.
class Mark {
  public:
    enum Use { reading, writing };

    // Held for the time of one call; throws ConcurrentStepError where that cannot be.
    class Hold {
      public:
        Hold(Mark& mark, Use use) : mark_(mark), generation_(fork_generation()) {
            if (mark.generation_ != generation_) {
                mark.readers_ = 0;
                mark.writer_ = false;
                mark.generation_ = generation_;
            }
            if (mark.writer_ || (use == writing && mark.readers_ > 0))
                throw ConcurrentStepError(
                    "state must be used by one call at a time, not while another one is at work on it; "
                    "use one State per thread, or a lock");
            if (use == writing)
                mark.writer_ = true;
            else
                ++mark.readers_;
        }
        Hold(const Hold&) = delete;
        Hold& operator=(const Hold&) = delete;
        ~Hold() {
            if (mark_.generation_ != generation_ || generation_ != fork_generation()) return;
            if (mark_.writer_)
                mark_.writer_ = false;
            else
                --mark_.readers_;
        }

      private:
        Mark& mark_;
        unsigned generation_;
    };

  private:
    int readers_ = 0;
    bool writer_ = false;
    unsigned generation_ = 0;  // of the process that set it
};

// What belongs to one object alone: a copy of the object has a new one.
template <class T>
struct Fresh : T {
    Fresh() = default;
    Fresh(const Fresh&) : T() {}
    Fresh& operator=(const Fresh&) = delete;
};

}  // namespace fast_momentum
