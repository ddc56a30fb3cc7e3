// What a daemon thread does that outlives the interpreter.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <thread>

namespace fast_momentum {

// Python before 3.14 ends a daemon thread that asks for the GIL of an interpreter that is shutting down, by
// way of an exception through all C++ frames, where it meets destructors that need the GIL. As 3.14 does,
// this waits until the process has ended. Nothing that has a destructor may come after it.
struct WaitForTheEnd {
    WaitForTheEnd() = default;
    WaitForTheEnd(const WaitForTheEnd&) = delete;
    WaitForTheEnd& operator=(const WaitForTheEnd&) = delete;
    ~WaitForTheEnd() {
        while (!has_gil) std::this_thread::sleep_for(std::chrono::hours(1));
    }
    bool has_gil = false;
};

// Calls what is written in Python, or gives up the GIL in another way.
inline pybind11::object called(const pybind11::object& function, const pybind11::tuple& arguments) {
    PyObject* result = nullptr;
    {
        WaitForTheEnd guard;
        result = PyObject_Call(function.ptr(), arguments.ptr(), nullptr);
        guard.has_gil = true;
    }
    if (!result) throw pybind11::error_already_set();
    return pybind11::reinterpret_steal<pybind11::object>(result);
}

}  // namespace fast_momentum
