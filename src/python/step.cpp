#include "python/step.hpp"

#include <optional>

#include "python/ending.hpp"

namespace fast_momentum {

const PyTypeObject* state_type = nullptr;

namespace {

State& checked_state(py::handle state) {
    // isinstance() and cast() would look the type up by name, twice. The class is final.
    if (Py_TYPE(state.ptr()) != state_type)
        throw py::type_error("state must be a State, as init() returns it, not " + type_name(state));
    auto* instance = reinterpret_cast<py::detail::instance*>(state.ptr());
    return *instance->get_value_and_holder().value_ptr<State>();
}

// Empties the scratch memory of a call, however it ends.
struct Cleared {
    explicit Cleared(Call& call_) : call(call_) {
        if (call.params.size() > 0) call.clear();  // of a call that a fork has cut off
    }
    Cleared(const Cleared&) = delete;
    Cleared& operator=(const Cleared&) = delete;
    ~Cleared() { call.clear(); }
    Call& call;
};

// From here on nothing can fail: no allocation, no Python code. `work(threads)` moves so many bytes.
template <class Run>
void run_unlocked(std::size_t bytes, const Run& work) {
    const int threads = threads_for(bytes);
    if (bytes < release_gil_bytes) return work(threads);
    PyThreadState* thread = PyEval_SaveThread();
    work(threads);
    WaitForTheEnd guard;
    PyEval_RestoreThread(thread);
    guard.has_gil = true;
}

void run_unlocked(const Work& work) {
    run_unlocked(work.bytes_moved(), [&](int threads) { run(work, threads); });
}

[[noreturn]] void raise_nonfinite(const State& state, const Call& call, double scale) {
    py::list paths, grads;
    for (std::size_t i = 0; i < call.partners.size(); ++i) {
        if (call.partners[i] == Py_None) continue;
        paths.append("grads" + state.tree().path(i));
        grads.append(py::handle(call.partners[i]));
    }
    const py::object message = py::module_::import("fast_momentum._nonfinite").attr("message");
    throw NonFiniteGradientError(called(message, py::make_tuple(paths, grads, scale)).cast<std::string>());
}

// Looks at all gradients before anything is written. Whether the step is to be made; clips it if so.
bool look_at_gradients(State& state, Call& call) {
    Pass& pass = call.work.pass;
    const bool clips = pass.wants(Setting::clip_norm);
    Norm::Found found{};
    run_unlocked(call.norm.bytes(), [&](int threads) {
        if (clips)
            found = call.norm.norm(pass.grad_scale, threads);
        else
            found.finite = call.norm.finite(pass.grad_scale, threads);
    });
    if (!found.finite && pass.nonfinite() == Nonfinite::raise) raise_nonfinite(state, call, pass.grad_scale);
    if (clips) {
        const double clip_norm = (*pass.settings)[Setting::clip_norm];
        pass.clip_coefficient = found.norm <= clip_norm ? 1 : clip_norm / found.norm;
    }
    state.set_grad_norm(clips ? std::optional<double>(found.norm) : std::nullopt);
    return found.finite || pass.nonfinite() == Nonfinite::propagate;
}

// The gradients are as good as used.
void skip_step(State& state) {
    Work& work = state.call.work;
    work.pass.task = Task::zero_grads;
    if (work.pass.zeroes_grads) run_unlocked(work);
    state.count_skipped_step();
}

}  // namespace

void step(py::handle params, py::handle grads, py::handle state_, py::handle grad_scale,
          py::handle zero_grads) {
    State& state = checked_state(state_);
    const Mark::Hold hold(state.mark, Mark::writing);
    const Cleared cleared(state.call);
    Call& call = state.call;
    state.tree().match(params, "params", "init()", call.params);
    state.tree().match(grads, "grads", "params", call.partners);
    const Constants& constants = state.kept_constants();
    call.work.pass = state.pass(grad_scale, zero_grads);
    const Pass& pass = call.work.pass;
    const Plan plan = grad_scale || zero_grads ? Plan(state.kept(), pass) : state.plan();
    check_step(state.kept(), constants, state.steps(), plan, call);
    if (!plan.plain && pass.averages()) state.copy_to_average(call.params);
    const bool looks = !plan.plain && pass.looks_first();
    if (!looks) state.set_grad_norm(std::nullopt);
    if (looks && !look_at_gradients(state, call)) return skip_step(state);
    run_unlocked(call.work);
    state.finish_step(call.partners);
}

py::object lookahead(py::handle params, py::handle state_, py::object out) {
    State& state = checked_state(state_);
    const Mark::Hold hold(state.mark, Mark::reading);
    Call call;
    state.tree().match(params, "params", "init()", call.params);
    const Constants constants = state.lookahead_constants();  // its own: another look-ahead may be running
    if (out.is_none())
        out = state.tree().build([&](std::size_t i) { return empty_like(state.kept(), i, call.params[i]); });
    state.tree().match(out, "out", "params", call.partners);
    call.work.pass.task = Task::lookahead;
    check_lookahead(state.kept(), constants, call);
    run_unlocked(call.work);
    return out;
}

void swap_average(State& state, py::handle params) {
    const Mark::Hold hold(state.mark, Mark::writing);
    const Cleared cleared(state.call);
    Call& call = state.call;
    state.check_has_average();
    state.tree().match(params, "params", "init()", call.params);
    call.work.pass = {};
    call.work.pass.task = Task::swap_average;
    check_params(state.kept(), call, true);
    run_unlocked(call.work);
    state.toggle_swapped();
}

double global_norm(py::handle grads) {
    Leaves leaves;
    const Tree tree(grads, "grads", leaves);
    Norm norm;
    check_norm(tree, leaves, norm);
    double found = 0;
    run_unlocked(norm.bytes(), [&](int threads) { found = norm.norm(1, threads).norm; });
    return found;
}

}  // namespace fast_momentum
