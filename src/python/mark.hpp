// Who is using a State: one call that writes, or calls that read.
#pragma once

#include <stdexcept>

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
        Hold(Mark& mark, Use use);
        Hold(const Hold&) = delete;
        Hold& operator=(const Hold&) = delete;
        ~Hold();

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
