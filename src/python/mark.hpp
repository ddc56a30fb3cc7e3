// Who is using a State: one call that writes, or calls that read.
#pragma once

#include <Python.h>

#include <atomic>
#include <cstdint>
#include <stdexcept>

#include "kernels/compilers.hpp"
#include "plain/threads.hpp"

namespace fast_momentum {

struct ConcurrentStepError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Void in a forked child, in which the thread that set it does not exist. What was written under a hold is
// seen under those that follow.
class Mark {
  public:
    enum Use { reading, writing };

    // Held for the time of one call; throws ConcurrentStepError where that cannot be.
    class Hold {
      public:
        Hold(Mark& mark, Use use) : mark_(mark), generation_(fork_generation()), use_(use) {
            const bool held = mark_.change([&](Users& users) {
                if (users.generation != generation_) users = {generation_, 0};
                if (users.count == writer || (use == writing && users.count > 0)) return false;
                users.count = use == writing ? writer : users.count + 1;
                return true;
            });
            if (!held)
                throw ConcurrentStepError(
                    "state must be used by one call at a time, not while another one is at work on it; "
                    "use one State per thread, or a lock");
        }
        Hold(const Hold&) = delete;
        Hold& operator=(const Hold&) = delete;
        ~Hold() {
            mark_.change([&](Users& users) {
                users.count = use_ == writing ? 0 : users.count - 1;
                return users.generation == generation_;
            });
        }

      private:
        Mark& mark_;
        unsigned generation_;
        Use use_;
    };

  private:
    static constexpr std::uint32_t writer = UINT32_MAX;
    struct Users {
        std::uint32_t generation;  // of the process that they are in
        std::uint32_t count;       // of those that read, or `writer`
    };

    // Calls edit(users) until what it makes of them is stored, or it returns false.
    template <class Edit>
    INLINED bool change(const Edit& edit) {
        Users found = users_.load(std::memory_order_relaxed), wanted;
        do {
            wanted = found;
            if (!edit(wanted)) return false;
        } while (!store(found, wanted));
        return true;
    }

    // A locked instruction takes as long as fifty others, and where there is a GIL it is held here.
    bool store([[maybe_unused]] Users& found, Users wanted) {
#ifdef Py_GIL_DISABLED
        return users_.compare_exchange_weak(found, wanted, std::memory_order_acq_rel,
                                            std::memory_order_relaxed);
#else
        users_.store(wanted, std::memory_order_relaxed);
        return true;
#endif
    }

    std::atomic<Users> users_{Users{0, 0}};
};

// What belongs to one object alone: a copy of the object has a new one.
template <class T>
struct Fresh : T {
    Fresh() = default;
    Fresh(const Fresh&) : T() {}
    Fresh& operator=(const Fresh&) = delete;
};

}  // namespace fast_momentum
