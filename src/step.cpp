#include "step.hpp"

#include <chrono>
#include <thread>

namespace fast_momentum {

namespace {

State& checked_state(py::handle state) {
    // isinstance() and cast() would look the type up by name, twice.
    static const py::detail::type_info* type = py::detail::get_type_info(typeid(State));
    py::detail::type_caster_generic caster(type);
    if (state.is_none() || !caster.load(state, false))
        throw py::type_error("state must be a State, as init() returns it, not " + type_name(state));
    return *static_cast<State*>(caster.value);
}

// Empties the scratch memory of a call, however it ends.
struct Cleared {
    explicit Cleared(Call& call_) : call(call_) { call.clear(); }
    Cleared(const Cleared&) = delete;
    Cleared& operator=(const Cleared&) = delete;
    ~Cleared() { call.clear(); }
    Call& call;
};

// Python before 3.14 ends a daemon thread that asks for the GIL of an interpreter that is shutting down, by
// way of an exception through all C++ frames, where it meets destructors that need the GIL. As 3.14 does,
// this waits until the process has ended.
struct WaitForTheEnd {
    WaitForTheEnd() = default;
    WaitForTheEnd(const WaitForTheEnd&) = delete;
    WaitForTheEnd& operator=(const WaitForTheEnd&) = delete;
    ~WaitForTheEnd() {
        while (!has_gil) std::this_thread::sleep_for(std::chrono::hours(1));
    }
    bool has_gil = false;
};

// From here on nothing can fail: no allocation, no Python code.
void run_unlocked(const Work& work) {
    const int threads = threads_for(work);
    if (work.bytes_moved() < release_gil_bytes) return run(work, threads);
    PyThreadState* thread = PyEval_SaveThread();
    run(work, threads);
    WaitForTheEnd guard;
    PyEval_RestoreThread(thread);
    guard.has_gil = true;
}

}  // namespace

void step(py::handle params, py::handle grads, py::handle state_) {
    State& state = checked_state(state_);
    const Mark::Hold hold(state.mark, Mark::writing);
    const Cleared cleared(state.call);
    Call& call = state.call;
    state.tree().match(params, "params", "init()", call.params);
    state.tree().match(grads, "grads", "params", call.others);
    check_step(state.tree(), state.velocities(), state.kept_constants(), state.started(), call);
    run_unlocked(call.work);
    state.finish_step(call.others);
}

py::object lookahead(py::handle params, py::handle state_, py::object out) {
    State& state = checked_state(state_);
    const Mark::Hold hold(state.mark, Mark::reading);
    Call call;
    state.tree().match(params, "params", "init()", call.params);
    state.check_lookahead();
    const Constants constants = state.constants();  // its own: another look-ahead may be running
    if (out.is_none())
        out = state.tree().build([&](std::size_t i) -> py::object {
            return py::module_::import("numpy").attr("empty_like")(state.velocities().view(i));
        });
    state.tree().match(out, "out", "params", call.others);
    check_lookahead(state.tree(), state.velocities(), constants, call);
    run_unlocked(call.work);
    return out;
}

}  // namespace fast_momentum
