// What any thread may read and change at any time, also beside a step.
#pragma once

#include <Python.h>

#include <mutex>
#include <utility>

namespace fast_momentum {

// Nothing where there is a GIL, which does the same. While it is held, no Python code may run: it could come
// here again, and a fork leaves the lock to the child as it is.
class Lock {
  public:
#ifdef Py_GIL_DISABLED
    void lock() { PyMutex_Lock(&mutex_); }
    void unlock() { PyMutex_Unlock(&mutex_); }

  private:
    PyMutex mutex_ = {0};
#else
    void lock() {}
    void unlock() {}
#endif
};

template <class T>
class Guarded {
  public:
    Guarded() = default;
    explicit Guarded(T value) : value_(std::move(value)) {}
    Guarded(const Guarded& other) : value_(other.copy()) {}
    Guarded& operator=(const Guarded&) = delete;

    T copy() const {
        return read([](const T& value) { return value; });
    }
    template <class Use>
    auto read(const Use& use) const {
        const std::lock_guard<Lock> held(lock_);
        return use(value_);
    }
    // What `use` takes out has to outlive the call: the end of an object may be Python code.
    template <class Use>
    auto change(const Use& use) {
        const std::lock_guard<Lock> held(lock_);
        return use(value_);
    }

    // For who is alone, as garbage collection is.
    T& unguarded() { return value_; }

  private:
    T value_{};
    mutable Lock lock_;
};

}  // namespace fast_momentum
