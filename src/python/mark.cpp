#include "python/mark.hpp"

#include "plain/threads.hpp"

namespace fast_momentum {

Mark::Hold::Hold(Mark& mark, Use use) : mark_(mark), generation_(fork_generation()) {
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

Mark::Hold::~Hold() {
    if (mark_.generation_ != generation_ || generation_ != fork_generation()) return;
    if (mark_.writer_)
        mark_.writer_ = false;
    else
        --mark_.readers_;
}

}  // namespace fast_momentum
