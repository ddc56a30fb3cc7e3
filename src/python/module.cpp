// pybind11 signatures and docstrings of _core, and nothing else.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

#include "plain/capi.hpp"
#include "plain/coefficients.hpp"
#include "plain/isa.hpp"
#include "plain/threads.hpp"
#include "python/docstrings.hpp"
#include "python/hyperparameters.hpp"
#include "python/state.hpp"
#include "python/step.hpp"

namespace py = pybind11;
using namespace py::literals;
using namespace fast_momentum;

namespace {

std::unique_ptr<State> init(py::object params, py::object lr, py::object momentum, py::object dampening,
                            py::object nesterov, py::object weight_decay, py::object decoupled_weight_decay,
                            py::object maximize, py::object form, py::object clip_norm, py::object clip_value,
                            py::object nonfinite, py::object average_decay, py::object velocity_dtype,
                            py::object compensated) {
    return State::init(params,
                       {{lr, momentum, dampening, weight_decay},
                        {nesterov, decoupled_weight_decay, maximize},
                        {clip_norm, clip_value, average_decay},
                        nonfinite,
                        velocity_dtype,
                        compensated},
                       checked_form(form));
}

py::dict coefficients_dict(const std::string& form, double lr, double momentum, double dampening,
                           bool nesterov, double weight_decay, bool decoupled_weight_decay, bool maximize,
                           bool first) {
    const Coefficients c = coefficients(checked_form(py::str(form)), {lr, momentum, dampening, weight_decay},
                                        {nesterov, decoupled_weight_decay, maximize}, first);
    return py::dict("sign"_a = c.sign, "weight_decay"_a = c.weight_decay, "keep"_a = c.keep,
                    "gain"_a = c.gain, "direct"_a = c.direct, "carried"_a = c.carried, "scale"_a = c.scale,
                    "decay"_a = c.decay, "ahead"_a = c.ahead,
                    "nesterov"_a = (c.variant & Term::nesterov) != 0);
}

py::dict config() {
    py::dict found;
    for (const Isa& isa : isas()) found[isa.name] = isa.found && !isa.disabled;
    py::list dtypes;
    for (const DtypeKernels& dtype : isa_in_use().kernels->dtypes) dtypes.append(dtype.name);
    return py::dict("version"_a = FAST_MOMENTUM_VERSION, "compiler"_a = FAST_MOMENTUM_COMPILER,
                    "dtypes"_a = dtypes, "instruction sets"_a = found, "in use"_a = isa_in_use().name,
                    "flags"_a = isa_in_use().kernels->flags, "threading layer"_a = threading_layer(),
                    "threads"_a = requested_threads());
}

template <Number::Name name>
void def_number(py::class_<State>& cls, const char* doc) {
    cls.def_property(
        number_names[name], [](const State& state) { return state.number(name); },
        [](State& state, py::handle value) { state.set_number(name, value); }, doc);
}

template <Flag::Name name>
void def_flag(py::class_<State>& cls, const char* doc) {
    cls.def_property(
        flag_names[name], [](const State& state) { return state.flag(name); },
        [](State& state, py::handle value) { state.set_flag(name, value); }, doc);
}

template <Option::Name name>
void def_option(py::class_<State>& cls, const char* doc) {
    cls.def_property(
        option_names[name], [](const State& state) { return state.option(name); },
        [](State& state, py::handle value) { state.set_option(name, value); }, doc);
}

// An exception of Python for one of C++.
template <class Error>
void def_error(py::module_& m, const char* name, const char* doc, PyObject* base) {
    static PyObject* type = nullptr;
    type = PyErr_NewExceptionWithDoc((std::string("fast_momentum.") + name).c_str(), doc, base, nullptr);
    m.attr(name) = py::handle(type);
    py::register_local_exception_translator([](std::exception_ptr pointer) {
        try {
            if (pointer) std::rethrow_exception(pointer);
        } catch (const Error& error) {
            PyErr_SetString(type, error.what());
        }
    });
}

// Defines a function or method, and what a call with other arguments says: pybind11 would print all that it
// was given. The first line of `doc` is the signature.
template <class Scope, class Function, class... Arguments>
void def(Scope& scope, const char* name, Function function, const char* doc, const Arguments&... arguments) {
    scope.def(name, function, arguments..., doc);
    const std::string text = doc, signature = text.substr(0, text.find('\n'));
    scope.def(name, [name, signature](const py::args& args, const py::kwargs& kwargs) {
        std::string keywords;
        for (const auto& [keyword, value] : kwargs)
            keywords += (keywords.empty() ? " and " : ", ") + text_of(keyword);
        throw py::type_error(std::string(name) + "() must be called as " + signature + ", not with " +
                             std::to_string(args.size()) + " positional argument" +
                             (args.size() == 1 ? "" : "s") +
                             (keywords.empty() ? " and no keyword" : keywords));
    });
}

// step(), for calls that have not what it needs: those get pybind11's treatment, and a message.
PyObject* slow_step = nullptr;

// The keyword-only arguments of step(), interned.
PyObject *grad_scale_name = nullptr, *zero_grads_name = nullptr;

// Whether there are no other keywords than those; `values` are the arguments.
bool read_keywords(PyObject* keywords, PyObject* const* values, py::handle& grad_scale,
                   py::handle& zero_grads) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(keywords); ++i) {
        PyObject* name = PyTuple_GET_ITEM(keywords, i);
        if (name == grad_scale_name)
            grad_scale = values[i];
        else if (name == zero_grads_name)
            zero_grads = values[i];
        else
            return false;
    }
    return true;
}

// Python's own calling convention: with the dispatcher of pybind11, a small step takes 1.4 times as long.
PyObject* call_step(PyObject*, PyObject* const* args, Py_ssize_t n, PyObject* keywords) {
    py::handle grad_scale, zero_grads;
    if (n != 3 || (keywords && !read_keywords(keywords, args + n, grad_scale, zero_grads)))
        return PyObject_Vectorcall(slow_step, args, static_cast<std::size_t>(n), keywords);
    try {
        step(args[0], args[1], args[2], grad_scale, zero_grads);
        Py_RETURN_NONE;
    } catch (py::error_already_set& error) {
        error.restore();
#ifdef __GLIBCXX__
    } catch (abi::__forced_unwind&) {  // the end of a daemon thread
        throw;
#endif
    } catch (...) {
        py::detail::try_translate_exceptions();
    }
    return nullptr;
}

void def_step(py::module_& m) {
    def(m, "step", &step, step_doc, "params"_a, "grads"_a, "state"_a, py::kw_only(), "grad_scale"_a = 1.0,
        "zero_grads"_a = false);
    slow_step = py::object(m.attr("step")).release().ptr();
    grad_scale_name = PyUnicode_InternFromString("grad_scale");
    zero_grads_name = PyUnicode_InternFromString("zero_grads");
    static PyMethodDef method = {"step",
                                 reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_step)),
                                 METH_FASTCALL | METH_KEYWORDS, step_doc};
    m.attr("step") = owned(PyCFunction_NewEx(&method, nullptr, m.attr("__name__").ptr()));
}

void def_c_api(py::module_& m) {
    m.attr("_C_API") = py::capsule(&c_api, "fast_momentum._core._C_API");
    py::dict capsules;
    for (const CythonFunction& item : cython_functions)
        capsules[item.name] = py::capsule(item.function, item.signature);
    m.attr("_pyx_capi") = capsules;
}

}  // namespace

PYBIND11_MODULE(_core, m) {
    py::options options;
    options.disable_function_signatures();

    m.doc() = "The compiled part of fast_momentum; use the names of the package instead.";
    m.attr("__version__") = FAST_MOMENTUM_VERSION;
    m.attr("forms") = py::tuple(py::cast(std::vector<const char*>(form_names, form_names + n_forms)));
    find_numpy_types();
    install_fork_handlers();

    def_error<ConcurrentStepError>(m, "ConcurrentStepError", concurrent_step_error_doc, PyExc_RuntimeError);
    def_error<NonFiniteGradientError>(m, "NonFiniteGradientError", non_finite_gradient_error_doc,
                                      PyExc_FloatingPointError);

    py::class_<State> state(m, "State", state_doc, py::is_final());
    state.attr("__module__") = "fast_momentum";
    def_number<Number::lr>(state, lr_doc);
    def_number<Number::momentum>(state, momentum_doc);
    def_number<Number::dampening>(state, dampening_doc);
    def_number<Number::weight_decay>(state, weight_decay_doc);
    def_flag<Flag::nesterov>(state, nesterov_doc);
    def_flag<Flag::decoupled_weight_decay>(state, decoupled_weight_decay_doc);
    def_flag<Flag::maximize>(state, maximize_doc);
    def_option<Option::clip_norm>(state, clip_norm_doc);
    def_option<Option::clip_value>(state, clip_value_doc);
    def_option<Option::average_decay>(state, average_decay_doc);
    state.def_property(
        "nonfinite", [](const State& s) { return nonfinite_names[static_cast<unsigned>(s.nonfinite())]; },
        &State::set_nonfinite, nonfinite_doc);
    state.def_property_readonly("velocity_dtype", &State::velocity_dtype, velocity_dtype_doc)
        .def_property_readonly("compensated", &State::compensated, compensated_doc)
        .def_property_readonly("skipped_steps", &State::skipped_steps, skipped_steps_doc)
        .def_property_readonly("grad_norm", &State::grad_norm, grad_norm_doc)
        .def_property_readonly("average", &State::average_containers, average_doc);
    def(state, "swap_average", &swap_average, swap_average_doc, "params"_a);
    state.def_property_readonly(
             "form", [](const State& s) { return name_of(s.form()); }, form_doc)
        .def_property_readonly("step_count", &State::step_count, step_count_doc)
        .def_property_readonly("velocity", &State::velocity_containers, velocity_doc);
    def(state, "state_dict", &State::state_dict, state_dict_doc);
    def(
        state, "load_state_dict",
        [](State& s, py::handle state_dict, py::handle strict) {
            s.load_state_dict(state_dict, checked_flag("strict", strict));
        },
        load_state_dict_doc, "state_dict"_a, "strict"_a = true);
    def(state, "reset", &State::reset, reset_doc, "path"_a = py::none());
    def(
        state, "to_form",
        [](State& s, py::handle form) {
            return py::module_::import("fast_momentum._forms").attr("to_form")(py::cast(&s), form);
        },
        to_form_doc, "form"_a);
    def(
        state, "set_lr",
        [](State& s, py::handle lr, py::handle rescale_velocity) {
            const bool rescale = checked_flag("rescale_velocity", rescale_velocity);
            py::module_::import("fast_momentum._forms").attr("set_lr")(py::cast(&s), lr, rescale);
        },
        set_lr_doc, "lr"_a, "rescale_velocity"_a = true);
    state.def("__repr__", &State::repr)
        .def("__copy__", &State::copy)
        .def(
            "__deepcopy__", [](State& s, py::handle) { return s.copy(); }, "memo"_a)
        .def("__reduce__",
             [](State& s) {
                 return py::make_tuple(py::module_::import("fast_momentum._pickle").attr("restore"),
                                       s.pickled());
             })
        // An instance that no State was put into would be used uninitialised.
        .def_static("__new__", [](const py::args&, const py::kwargs&) {
            throw py::type_error("a State must come from init(), not from its class");
        });

    def(m, "init", &init, init_doc, "params"_a, py::kw_only(), "lr"_a, "momentum"_a = 0.9,
        "dampening"_a = 0.0, "nesterov"_a = false, "weight_decay"_a = 0.0, "decoupled_weight_decay"_a = false,
        "maximize"_a = false, "form"_a = "lr_outside", "clip_norm"_a = py::none(),
        "clip_value"_a = py::none(), "nonfinite"_a = "propagate", "average_decay"_a = py::none(),
        "velocity_dtype"_a = py::none(), "compensated"_a = false);
    def_step(m);
    def(m, "global_norm", &global_norm, global_norm_doc, "grads"_a);
    def(m, "lookahead", &lookahead, lookahead_doc, "params"_a, "state"_a, "out"_a = py::none());
    def(m, "get_num_threads", &requested_threads, get_num_threads_doc);
    def(
        m, "set_num_threads",
        [](py::handle threads) { request_threads(checked_count("threads", threads, 1)); },
        set_num_threads_doc, "threads"_a);

    def_c_api(m);
    m.def("unpickled", &State::unpickled, "containers"_a, "rest"_a, "What __reduce__ took apart.");
    m.def("coefficients", &coefficients_dict, "form"_a, py::kw_only(), "lr"_a, "momentum"_a,
          "dampening"_a = 0.0, "nesterov"_a = false, "weight_decay"_a = 0.0,
          "decoupled_weight_decay"_a = false, "maximize"_a = false, "first"_a = false,
          "The constants of the linear rule, in double, with which every step is made.");
    m.def("config", &config, "What show_config() prints.");
    m.def("disable_isas", &disable_isas, "names"_a,
          "Take instruction sets away; return the names that cannot be taken.");
    m.def("use_isa", &use_isa, "name"_a,
          "Use this instruction set, for tests; False where the CPU lacks it.");
    m.def("usable_threads", &usable_threads, "The request, limited by what this process may use.");
    m.def("cgroup_cpus", &cgroup_cpus, "root"_a,
          "The CPUs that the cgroup mounted at root allows; 0 for no limit.");
}
