#include "python/step.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>
#include <utility>

#include "python/candidate.hpp"
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

[[noreturn]] void raise_nonfinite(const State& state, const char* name, const Leaves& leaves, double scale) {
    py::list paths, arrays;
    for (std::size_t i = 0; i < leaves.size(); ++i) {
        if (leaves[i] == Py_None) continue;
        paths.append(name + state.tree().path(i));
        arrays.append(py::handle(leaves[i]));
    }
    const py::object message = py::module_::import("fast_momentum._nonfinite").attr("message");
    throw NonFiniteGradientError(called(message, py::make_tuple(paths, arrays, scale)).cast<std::string>());
}

// Looks at all gradients before anything is written. Whether the step is to be made; clips it if so.
bool look_at_gradients(State& state, Call& call) {
    Pass& pass = call.work.pass;
    const bool clips = pass.wants(Setting::clip_norm);
    FoundNorm found{};
    run_unlocked(call.norm.bytes(), [&](int threads) {
        if (clips)
            found = call.norm.norm(pass.grad_scale, threads);
        else
            found.finite = call.norm.finite(pass.grad_scale, threads);
    });
    if (!found.finite && pass.nonfinite() == Nonfinite::raise)
        raise_nonfinite(state, "grads", call.partners, pass.grad_scale);
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

// The user's own proximal map, which runs before anything is written; null for none.
OUTLINED py::handle checked_prox(const State& state, py::handle prox) {
    if (prox.is_none()) return {};
    if (!state.rule().is_accelerated())
        throw py::value_error(std::string("prox must be None in the rule ") + state.rule().name + ", not " +
                              brief(prox) + "; only accelerated has it");
    if (!PyCallable_Check(prox.ptr()))
        throw py::type_error("prox must be a function or None, not " + type_name(prox));
    for (const Setting::Name name : {Setting::l1, Setting::lower, Setting::upper})
        if (state.is_set(name))
            throw py::value_error(std::string("prox must be None where ") + all_settings[name].name +
                                  " is set, not " + brief(prox) + "; let it do what " +
                                  all_settings[name].name + " does");
    return prox;
}

// A candidate that is not finite is not stepped to where a gradient would not be. Whether to go on.
bool look_at_candidate(State& state, Call& call, const Candidate& candidate) {
    const Nonfinite nonfinite = call.work.pass.nonfinite();
    if (nonfinite == Nonfinite::propagate) return true;
    const Arrays& model = state.kept().model();
    Norm values;
    for (std::size_t i = 0; i < call.candidates.size(); ++i)
        if (call.candidates[i])
            values.add({call.candidates[i], nullptr, nullptr}, model.dtype(i), model[i].size, nullptr,
                       nullptr, 0);
    bool finite = true;
    run_unlocked(values.bytes(), [&](int threads) { finite = values.finite(1, threads); });
    if (!finite && nonfinite == Nonfinite::raise) raise_nonfinite(state, "candidate", candidate.arrays(), 1);
    return finite;
}

// Whether an accelerated step goes against the one before; without an allocation.
bool turns_back(Call& call) {
    call.work.sums.resize(call.work.n_sums);
    call.work.pass.task = Task::align;
    run_unlocked(call.work);
    call.work.pass.task = Task::step;
    return sum_of_blocks(call.work.sums) > 0;
}

void finish_step(State& state, Call& call) {
    run_unlocked(call.work);
    state.finish_step(call.partners);
}

// Fills state.call with what is asked for, or throws; its pass is set.
void check_call(State& state, py::handle params, py::handle grads, const Constants& constants,
                const Plan& plan) {
    state.tree().match(params, "params", "init()", state.call.params);
    state.tree().match(grads, "grads", "params", state.call.partners);
    check_step(state.kept(), constants, state.steps(), plan, state.call);
}

// A step for which more is to be done than for a plain one, once it has been checked.
class WholeStep {
  public:
    WholeStep(State& state, py::handle params, py::handle grads, const Constants& constants, const Plan& plan)
        : state_(state), params_(params), grads_(grads), constants_(constants), plan_(plan) {}

    WholeStep(const WholeStep&) = delete;
    ~WholeStep() { call_.candidates.clear(); }

    OUTLINED void make(py::handle prox) {
        Pass& pass = call_.work.pass;
        if (pass.averages()) state_.copy_to_average(call_.params);
        call_.work.sums.reserve(pass.wants(Setting::restart) ? call_.work.n_sums : 0);
        const std::optional<double> norm_before = state_.progress().grad_norm;
        if (!pass.looks_first())
            state_.set_grad_norm(std::nullopt);
        else if (!look_at_gradients(state_, call_))
            return skip_step(state_);
        try {
            if (prox && !goes_to(prox)) return skip_step(state_);
        } catch (...) {
            state_.set_grad_norm(norm_before);
            throw;
        }
        if (pass.wants(Setting::restart)) pass.restarts = turns_back(call_);
        finish_step(state_, call_);
        if (pass.restarts) state_.restart_sequences();
    }

  private:
    // Where `prox` takes an accelerated step; false where it is left out. All is checked once more after it,
    // as it may have changed it.
    bool goes_to(py::handle prox) {
        Candidate& candidate = candidate_.emplace(state_.kept(), call_.partners);
        call_.candidates = candidate.memory();
        check_again();
        call_.work.pass.task = Task::propose;
        run_unlocked(call_.work);
        call_.work.pass.task = Task::step;
        candidate.hand_to(prox);
        check_again();
        return look_at_candidate(state_, call_, candidate);
    }

    void check_again() {
        call_.clear();
        check_call(state_, params_, grads_, constants_, plan_);
        for (std::size_t i = 0; i < call_.partners.size(); ++i)
            if ((call_.partners[i] == Py_None) != (call_.candidates[i] == nullptr))
                throw py::value_error("grads" + state_.tree().path(i) +
                                      " must stay as it is while prox runs, not become None or an array");
    }

    State& state_;
    Call& call_ = state_.call;
    py::handle params_, grads_;
    const Constants& constants_;
    const Plan& plan_;
    std::optional<Candidate> candidate_;
};

}  // namespace

void step(py::handle params, py::handle grads, py::handle state_, py::handle grad_scale,
          py::handle zero_grads, py::handle prox) {
    State& state = checked_state(state_);
    const Mark::Hold hold(state.mark, Mark::writing);
    const Cleared cleared(state.call);
    Call& call = state.call;
    state.tree().match(params, "params", "init()", call.params);
    state.tree().match(grads, "grads", "params", call.partners);
    const Constants& constants = state.kept_constants();
    call.work.pass = state.pass(grad_scale, zero_grads);
    if (prox) prox = checked_prox(state, prox);
    const Plan plan = grad_scale || zero_grads ? Plan(state.kept(), call.work.pass) : state.plan();
    check_step(state.kept(), constants, state.steps(), plan, call);
    if (!plan.plain) return WholeStep(state, params, grads, constants, plan).make(prox);
    state.set_grad_norm(std::nullopt);
    finish_step(state, call);
}

void clipped_step(py::handle params, py::handle grads, py::handle state_, py::handle grad_scale,
                  double clip_coefficient) {
    State& state = checked_state(state_);
    const Mark::Hold hold(state.mark, Mark::writing);
    const Cleared cleared(state.call);
    const Constants& constants = state.kept_constants();
    Pass& pass = state.call.work.pass = state.pass(grad_scale, {});
    pass.clip_coefficient = clip_coefficient;
    const Plan plan(state.kept(), pass);
    check_call(state, params, grads, constants, plan);
    if (!plan.plain) return WholeStep(state, params, grads, constants, plan).make({});
    finish_step(state, state.call);
}

void step_elsewhere(py::handle params, py::handle grads, py::handle state_, py::handle grad_scale,
                    py::handle zero_grads, const py::object& use) {
    State& state = checked_state(state_);
    const Mark::Hold hold(state.mark, Mark::writing);
    const Cleared cleared(state.call);
    Call& call = state.call;
    const Constants& constants = state.kept_constants();
    call.work.pass = state.pass(grad_scale, zero_grads);
    check_call(state, params, grads, constants, Plan(state.kept(), call.work.pass));
    const auto found = called(use, py::make_tuple(listed(call.params), listed(call.partners)))
                           .cast<std::pair<bool, std::optional<double>>>();
    state.set_grad_norm(found.second);
    if (!found.first) return state.count_skipped_step();
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
    if (!state.kept().params.kept_elsewhere) run_unlocked(call.work);
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
    if (!state.kept().params.kept_elsewhere) run_unlocked(call.work);
    state.toggle_swapped();
}

namespace {

Norm checked_norm(py::handle grads) {
    Leaves leaves;
    const Tree tree(grads, "grads", leaves);
    Norm norm;
    check_norm(tree, leaves, norm);
    return norm;
}

}  // namespace

double global_norm(py::handle grads) {
    Norm norm = checked_norm(grads);
    double found = 0;
    run_unlocked(norm.bytes(), [&](int threads) { found = norm.norm(1, threads).norm; });
    return found;
}

py::array_t<double> sums_of_squares(py::handle grads, double scale, double factor) {
    Norm norm = checked_norm(grads);
    run_unlocked(norm.bytes(), [&](int threads) { norm.sum_blocks(scale, factor, threads); });
    return py::array_t<double>(static_cast<py::ssize_t>(norm.blocks().size()), norm.blocks().data());
}

std::pair<double, bool> norm_of_blocks(const py::object& blocks, bool has_float64) {
    const FoundNorm found = norm_of(has_float64, [&](double factor) {
        const auto sums = called(blocks, py::make_tuple(factor)).cast<py::array_t<double>>();
        std::vector<double> copy(sums.data(), sums.data() + sums.size());
        return sum_of_blocks(copy);
    });
    return {found.norm, found.finite};
}

bool all_finite(py::handle grads, double scale) {
    Norm norm = checked_norm(grads);
    bool found = false;
    run_unlocked(norm.bytes(), [&](int threads) { found = norm.finite(scale, threads); });
    return found;
}

}  // namespace fast_momentum
