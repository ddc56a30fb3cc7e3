// pybind11 signatures and docstrings of _core, and nothing else.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

#include "plain/arithmetic.hpp"
#include "plain/capi.hpp"
#include "plain/isa.hpp"
#include "plain/rules.hpp"
#include "plain/threads.hpp"
#include "python/docstrings.hpp"
#include "python/ending.hpp"
#include "python/numpy_types.hpp"
#include "python/prefix.hpp"
#include "python/rows.hpp"
#include "python/signature.hpp"
#include "python/state.hpp"
#include "python/step.hpp"

namespace py = pybind11;
using namespace py::literals;
using namespace fast_momentum;

namespace {

// The constants of a rule's row for these values, by name, for a step of an array that has made so many.
py::dict coefficients_dict(py::handle rule, py::handle form, long long steps, const py::kwargs& kwargs) {
    const Rule* row = find_rule(text_of(rule), form.is_none() ? nullptr : text_of(form).c_str());
    if (!row) throw py::value_error("there is no such rule and form");
    Values values{};
    for (const Setting& setting : all_settings)
        if (kwargs.contains(setting.name))
            values[setting.place] = py::float_(py::object(kwargs[setting.name])).cast<double>();
    const Coefficients c = coefficients(*row, values, {steps});
    return py::dict("sign"_a = c.sign, "weight_decay"_a = c.weight_decay, "keep"_a = c.keep,
                    "gain"_a = c.gain, "direct"_a = c.direct, "carried"_a = c.carried, "scale"_a = c.scale,
                    "decay"_a = c.decay, "ahead"_a = c.ahead, "second_keep"_a = c.second_keep,
                    "second_gain"_a = c.second_gain, "correction"_a = c.correction, "eps"_a = c.eps,
                    "nesterov"_a = ((c.variant - first_variant(row->formula)) / Term::nesterov) % 2 != 0);
}

// The tables, for Python: what each setting is, and which of them, with which default, each rule and form
// takes.
py::dict settings_table() {
    const char* kinds[] = {"number",           "bound", "flag", "option", "choice", "choice_or_none",
                           "choice_or_number", "dtype"};
    py::dict table;
    for (const Setting& setting : all_settings) {
        py::list names;
        for (auto choice = setting.choices; choice && *choice; ++choice) names.append(*choice);
        for (const char* name : setting.kind == Kind::dtype ? dtype_names() : std::vector<const char*>())
            names.append(name);
        table[setting.name] =
            py::dict("kind"_a = kinds[static_cast<unsigned>(setting.kind)],
                     "requirement"_a = setting.range.requirement, "low"_a = setting.range.low,
                     "high"_a = setting.range.high, "has_low"_a = setting.range.has_low,
                     "has_high"_a = setting.range.has_high, "choices"_a = names, "fixed"_a = setting.fixed,
                     "since"_a = setting.since, "of_every_rule"_a = setting.of_every_rule);
    }
    return table;
}

py::list rules_table() {
    py::list table;
    for (const Rule& rule : all_rules()) {
        py::dict defaults;
        py::list takes, keeps;
        for (const Setting& setting : all_settings) {
            if (!rule.takes_setting(setting.place)) continue;
            takes.append(setting.name);
            if (const py::object value = fallback(rule, setting.place)) defaults[setting.name] = value;
        }
        for (const Slot& slot : all_slots)
            if (rule.keeps_slot(slot.place)) keeps.append(slot.name);
        table.append(py::dict("rule"_a = rule.name, "form"_a = rule.form, "made_by"_a = rule.made_by,
                              "linear"_a = rule.formula == Formula::linear, "takes"_a = takes,
                              "defaults"_a = defaults, "keeps"_a = keeps));
    }
    return table;
}

py::dict config() {
    py::dict found;
    for (const Isa& isa : isas()) found[isa.name] = isa.found && !isa.disabled;
    py::list dtypes, narrow;
    for (const DtypeKernels& dtype : isa_in_use().kernels->dtypes) dtypes.append(dtype.name);
    for (const Storage& storage : isa_in_use().kernels->storages) narrow.append(storage.name);
    return py::dict("version"_a = FAST_MOMENTUM_VERSION, "compiler"_a = FAST_MOMENTUM_COMPILER,
                    "dtypes"_a = dtypes, "float32 stored as"_a = narrow, "instruction sets"_a = found,
                    "in use"_a = isa_in_use().name, "flags"_a = isa_in_use().kernels->flags,
                    "threading layer"_a = threading_layer(), "threads"_a = requested_threads());
}

void def_settings(py::class_<State>& cls) {
    for (const Setting& setting : all_settings) {
        const auto get = [name = setting.place](const State& state) { return state.shown(name); };
        const auto set = [name = setting.place](State& state, py::handle value) {
            const StandardArithmetic arithmetic;
            state.set(name, value);
        };
        if (setting.fixed)
            cls.def_property_readonly(setting.name, get, attribute_doc(setting).c_str());
        else
            cls.def_property(setting.name, get, set, attribute_doc(setting).c_str());
    }
}

// An exception of Python for one of C++.
template <class Error>
void def_error(py::module_& m, const char* name, const char* doc, PyObject* base) {
    py::object type = py::register_local_exception<Error>(m, name, base);
    type.attr("__module__") = "fast_momentum";
    type.doc() = doc;
}

template <class Function>
void def(py::module_& m, const char* name, const Function& function, const char* doc,
         std::vector<Parameter> parameters) {
    m.def(
        name,
        [function, signature = Signature(name, std::move(parameters))](const py::args& args,
                                                                       const py::kwargs& kwargs) {
            return function(signature.bound(args, kwargs));
        },
        doc, py::call_guard<StandardArithmetic>());
}

template <class Function>
void def(py::class_<State>& cls, const char* name, const Function& function, const char* doc,
         std::vector<Parameter> parameters) {
    cls.def(
        name,
        [function, signature = Signature(name, std::move(parameters))](State& state, const py::args& args,
                                                                       const py::kwargs& kwargs) {
            return function(state, signature.bound(args, kwargs));
        },
        doc, py::call_guard<StandardArithmetic>());
}

constexpr const char* from_its_class = "a State must come from init(), not from its class";

// A State as an object of Python. By pybind11's own way it would be deleted twice where there is no memory
// for its entry in the table of instances.
py::object wrapped(std::unique_ptr<State> state) {
    py::object object = py::cast(state.get(), py::return_value_policy::reference);
    auto* instance = reinterpret_cast<py::detail::instance*>(object.ptr());
    py::detail::value_and_holder place = instance->get_value_and_holder();
    new (std::addressof(place.holder<std::unique_ptr<State>>())) std::unique_ptr<State>(std::move(state));
    place.set_holder_constructed();
    instance->owned = true;
    return object;
}

// The State of an instance, or nullptr where none was put into it.
State* state_of(PyObject* object) {
    auto* instance = reinterpret_cast<py::detail::instance*>(object);
    // Without a layout yet: pybind11 may wait for a lock there, and the collector begin.
    if (!instance->simple_layout || !py::detail::is_holder_constructed(object)) return nullptr;
    return instance->get_value_and_holder().value_ptr<State>();
}

// What is no attribute, or none that may be set, gets a message that says what is to be done.
int set_attribute(PyObject* self, PyObject* name, PyObject* value) {
    const int failed = PyObject_GenericSetAttr(self, name, value);
    if (!failed || !PyErr_ExceptionMatches(PyExc_AttributeError)) return failed;
    try {
        const py::error_already_set error;
        const py::object message = py::module_::import("fast_momentum._messages").attr("of_attribute");
        const py::tuple arguments = py::make_tuple(py::handle(name), error.value());
        PyErr_SetObject(PyExc_AttributeError, called(message, arguments).ptr());
    } catch (py::error_already_set& error) {
        error.restore();
    }
    return -1;
}

// A key of a dict or the type of a container may refer to the State that keeps it.
void collect_garbage(PyHeapTypeObject* heap_type) {
    PyTypeObject& type = heap_type->ht_type;
    type.tp_flags |= Py_TPFLAGS_HAVE_GC;
    type.tp_setattro = set_attribute;
    type.tp_traverse = [](PyObject* self, visitproc visit, void* arg) {
        Py_VISIT(Py_TYPE(self));
        int result = 0;
        if (State* state = state_of(self))
            state->each_object([&](const py::object& object) {
                if (object && result == 0) result = visit(object.ptr(), arg);
            });
        return result;
    };
    // Something else is in their places then, for whoever has kept the State and calls it.
    type.tp_clear = [](PyObject* self) {
        if (State* state = state_of(self))
            state->each_object([](py::object& object) {
                if (object) const py::object before = std::exchange(object, py::none());
            });
        return 0;
    };
}

// An instance that no State was put into would be used uninitialised. Python's object.__new__ and that of the
// base of all classes of pybind11 make none of a type that has this slot.
void refuse_instances(const py::object& type) {
    auto* slots = reinterpret_cast<PyTypeObject*>(type.ptr());
    slots->tp_new = [](PyTypeObject*, PyObject*, PyObject*) -> PyObject* {
        PyErr_SetString(PyExc_TypeError, from_its_class);
        return nullptr;
    };
    // pybind11, which alone calls it, does not ask whether there was memory.
    slots->tp_alloc = [](PyTypeObject* of, Py_ssize_t n) {
        PyObject* made = PyType_GenericAlloc(of, n);
        if (!made) throw py::error_already_set();
        return made;
    };
}

// Made at the import; never deleted.
const std::vector<py::str>& setting_names() {
    static const auto& names = *[] {
        auto* made = new std::vector<py::str>;
        for (const Setting& setting : all_settings) made->emplace_back(setting.name);
        return made;
    }();
    return names;
}

[[noreturn]] void refuse_call(const Rule& rule, std::size_t n_placed, const py::kwargs& keywords) {
    std::vector<Parameter> parameters = {{"params"}};
    for (const Setting& setting : all_settings)
        if (is_keyword(rule, setting.place))
            parameters.push_back({setting.name, fallback(rule, setting.place), false});
    refuse_call(rule.made_by, parameters, n_placed, keywords);
}

// What the function that makes a State of a rule, in any of its forms, does with a call.
std::unique_ptr<State> make(const Rule& rule, const py::args& args, const py::kwargs& kwargs,
                            bool kept_elsewhere = false) {
    const std::vector<py::str>& names = setting_names();
    const bool by_name = args.empty() && kwargs.contains("params");
    Given given;
    std::size_t n_found = by_name;
    bool is_good = args.size() + by_name == 1;
    for (const Setting& setting : all_settings) {
        if (!is_keyword(rule, setting.place)) continue;
        py::object& value = given[setting.place];
        if (PyObject* found = PyDict_GetItemWithError(kwargs.ptr(), names[setting.place].ptr())) {
            value = py::reinterpret_borrow<py::object>(found);
            ++n_found;
        } else {
            value = fallback(rule, setting.place);
        }
        if (PyErr_Occurred()) throw py::error_already_set();
        is_good = is_good && value;
    }
    if (n_found != kwargs.size() || !is_good) refuse_call(rule, args.size(), kwargs);
    return State::init(rule, by_name ? py::object(kwargs["params"]) : py::object(args[0]), given,
                       kept_elsewhere);
}

void def_makers(py::module_& m) {
    setting_names();
    for (const Rule& rule : all_rules()) {
        if (&rule != find_rule(rule.name)) continue;  // another form
        m.def(
            rule.made_by,
            [&rule](const py::args& args, const py::kwargs& kwargs) {
                return wrapped(make(rule, args, kwargs));
            },
            maker_doc(rule).c_str(), py::call_guard<StandardArithmetic>());
    }
}

// ---- step ----

// step(), for calls that have not what it needs: those get a message, or are those after all.
PyObject* slow_step = nullptr;

// The keyword-only arguments of step(), interned.
PyObject *grad_scale_name = nullptr, *zero_grads_name = nullptr, *prox_name = nullptr;

// Whether there are no other keywords than those; `values` are the arguments.
bool read_keywords(PyObject* keywords, PyObject* const* values, py::handle& grad_scale,
                   py::handle& zero_grads, py::handle& prox) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(keywords); ++i) {
        PyObject* name = PyTuple_GET_ITEM(keywords, i);
        if (name == grad_scale_name)
            grad_scale = values[i];
        else if (name == zero_grads_name)
            zero_grads = values[i];
        else if (name == prox_name)
            prox = values[i];
        else
            return false;
    }
    return true;
}

// Python's own calling convention: with the dispatcher of pybind11, a small step takes 1.4 times as long.
PyObject* call_step(PyObject*, PyObject* const* args, Py_ssize_t n, PyObject* keywords) {
    py::handle grad_scale, zero_grads, prox;
    if (n != 3 || (keywords && !read_keywords(keywords, args + n, grad_scale, zero_grads, prox)))
        return PyObject_Vectorcall(slow_step, args, static_cast<std::size_t>(n), keywords);
    const StandardArithmetic arithmetic;
    try {
        step(args[0], args[1], args[2], grad_scale, zero_grads, prox);
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
    def(m, "step", [](const Arguments& a) { step(a[0], a[1], a[2], a[3], a[4], a[5]); }, step_doc,
        {{"params"},
         {"grads"},
         {"state"},
         {"grad_scale", py::float_(1.0), false},
         {"zero_grads", py::bool_(), false},
         {"prox", py::none(), false}});
    slow_step = py::object(m.attr("step")).release().ptr();
    grad_scale_name = PyUnicode_InternFromString("grad_scale");
    zero_grads_name = PyUnicode_InternFromString("zero_grads");
    prox_name = PyUnicode_InternFromString("prox");
    static PyMethodDef method = {"step",
                                 reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_step)),
                                 METH_FASTCALL | METH_KEYWORDS, step_doc};
    m.attr("step") = owned(PyCFunction_NewEx(&method, nullptr, m.attr("__name__").ptr()));
}

// For what steps the arrays of a State elsewhere: fast_momentum.mpi.
void def_shares(py::module_& m) {
    m.def(
        "kept_elsewhere",
        [](const std::string& rule, py::handle params, const py::kwargs& settings) {
            const Rule* row = find_rule(rule.c_str());
            if (!row) throw py::value_error("there is no such rule");
            return wrapped(make(*row, py::make_tuple(params), settings, true));
        },
        "A State of a rule that has none of its arrays: it checks and counts.",
        py::call_guard<StandardArithmetic>());
    m.def("step_elsewhere", &step_elsewhere, "step() of such a State; `use` makes it, once all is checked.",
          py::call_guard<StandardArithmetic>());
    m.def("clipped_step", &clipped_step, "step() with a coefficient by which a norm clips.",
          py::call_guard<StandardArithmetic>());
    m.def("sums_of_squares", &sums_of_squares, "Of each block of which global_norm() is formed.",
          py::call_guard<StandardArithmetic>());
    m.def("norm_of_blocks", &norm_of_blocks,
          "global_norm() from these, which blocks(factor) has of several lists.",
          py::call_guard<StandardArithmetic>());
    m.def("all_finite", &all_finite, "Whether all elements times a scale are.",
          py::call_guard<StandardArithmetic>());
}

void def_c_api(py::module_& m) {
    m.attr("_C_API") = py::capsule(&c_api_1, "fast_momentum._core._C_API");
    m.attr("_C_API_2") = py::capsule(&c_api, "fast_momentum._core._C_API_2");
    // As cython_momentum.pxd declares it, in Cython's spelling; a program that does not agree about the
    // signature cannot be imported.
    py::dict capsules;
    const auto add = [&](const char* name, const char* signature, auto* function) {
        capsules[name] = py::capsule(reinterpret_cast<void*>(function), signature);
    };
#define STEP "int64_t, int, int, double, double, double, double)"
#define LOOKAHEAD "int64_t, int, double, double)"
#define SETTINGS(of) "int (struct __pyx_t_13fast_momentum_15cython_momentum_" of " const *, int, "
    add("step_float32", "int (float *, float const *, float *, " STEP, c_api.step_float32);
    add("step_float64", "int (double *, double const *, double *, " STEP, c_api.step_float64);
    add("step", "int (int, void *, void const *, void *, " STEP, c_api.step);
    add("lookahead_float32", "int (float *, float const *, float const *, " LOOKAHEAD,
        c_api.lookahead_float32);
    add("lookahead_float64", "int (double *, double const *, double const *, " LOOKAHEAD,
        c_api.lookahead_float64);
    add("lookahead", "int (int, void *, void const *, void const *, " LOOKAHEAD, c_api.lookahead);
    add("message", "char const *(int)", c_api.message);
    add("update", SETTINGS("Settings") "void *, void const *, void *, int64_t)", c_api.update);
    add("lookahead_with", SETTINGS("Settings") "void *, void const *, void const *, int64_t)",
        c_api.lookahead_with);
    add("adam", SETTINGS("AdamSettings") "void *, void const *, void *, void *, void *, int64_t)",
        c_api.adam);
    m.attr("_pyx_capi") = capsules;
}

// What is set here is of the process, and NumPy is not to be had twice either.
constexpr const char* main_alone =
    "fast_momentum must be imported in the main interpreter, as NumPy must, not in another one; use threads, "
    "or "
    "another process";

bool is_main_interpreter() {
    return PyInterpreterState_Get() == PyInterpreterState_Main();
}

}  // namespace

PYBIND11_MODULE(_core_of_main, m, py::mod_gil_not_used()) {
    if (!is_main_interpreter()) throw py::import_error(main_alone);
    py::options options;
    options.disable_function_signatures();

    m.doc() = "The compiled part of fast_momentum; use the names of the package instead.";
    m.attr("__version__") = FAST_MOMENTUM_VERSION;
    m.attr("settings") = settings_table();
    m.attr("rules") = rules_table();
    numpy_types();
    install_fork_handlers();

    // What pybind11 says where it cannot make an object of Python.
    py::register_local_exception_translator([](std::exception_ptr raised) {
        try {
            std::rethrow_exception(raised);
        } catch (const std::runtime_error&) {
            if (!PyErr_Occurred() || !PyErr_ExceptionMatches(PyExc_MemoryError)) throw;
        }
    });
    def_error<ConcurrentStepError>(m, "ConcurrentStepError", concurrent_step_error_doc, PyExc_RuntimeError);
    def_error<NonFiniteGradientError>(m, "NonFiniteGradientError", non_finite_gradient_error_doc,
                                      PyExc_FloatingPointError);

    py::class_<State> state(m, "State", state_doc, py::is_final(), py::custom_type_setup(collect_garbage));
    state.attr("__module__") = "fast_momentum";
    state_type = reinterpret_cast<PyTypeObject*>(state.ptr());
    def_settings(state);
    state.def_property_readonly(
             "rule", [](const State& s) { return s.rule().name; }, rule_doc)
        .def_property_readonly(
            "skipped_steps", [](const State& s) { return counted(s.progress().skipped_steps); },
            skipped_steps_doc)
        .def_property_readonly(
            "grad_norm", [](const State& s) { return s.progress().grad_norm; }, grad_norm_doc)
        .def_property_readonly(
            "step_count", [](const State& s) { return counted(s.progress().step_count); }, step_count_doc);
    for (const Slot& slot : all_slots)
        if (slot.doc)
            state.def_property_readonly(
                slot.name, [name = slot.place](State& s) { return s.containers(name); }, slot.doc);
    def(state, "swap_average", [](State& s, const Arguments& a) { swap_average(s, a[0]); }, swap_average_doc,
        {{"params"}});
    def(state, "state_dict", [](State& s, const Arguments&) { return s.state_dict(); }, state_dict_doc, {});
    def(state, "load_state_dict", [](State& s, const Arguments& a) { s.load_state_dict(a[0], a[1]); },
        load_state_dict_doc, {{"state_dict"}, {"strict", py::bool_(true)}});
    def(state, "reset", [](State& s, const Arguments& a) { s.reset(a[0]); }, reset_doc,
        {{"path", py::none()}});
    def(state, "to_form",
        [](State& s, const Arguments& a) {
            return called(py::module_::import("fast_momentum._forms").attr("to_form"),
                          py::make_tuple(py::cast(&s), a[0]));
        },
        to_form_doc, {{"form"}});
    def(state, "set_lr", [](State& s, const Arguments& a) { s.set_lr(a[0], a[1]); }, set_lr_doc,
        {{"lr"}, {"rescale_velocity", py::bool_(true)}});
    state.def("_scale_velocities", &State::scale_velocities, "Multiply them, for to_form().",
              py::call_guard<StandardArithmetic>());
    state.def("_lend", &State::lend, "For save().");
    state.def("_fill", &State::fill, "For load() and restore().", py::call_guard<StandardArithmetic>());
    state.def("__repr__", &State::repr)
        .def("__copy__", [](State& s) { return wrapped(s.copy()); })
        .def("__deepcopy__", [](State& s, py::handle) { return wrapped(s.copy()); })
        .def("__reduce__",
             [](State& s) {
                 return py::make_tuple(py::module_::import("fast_momentum._pickle").attr("restore"),
                                       s.pickled());
             })
        .def_static("__new__",
                    [](const py::args&, const py::kwargs&) { throw py::type_error(from_its_class); });
    refuse_instances(state);

    def_rows(m, rows_doc);
    def_makers(m);
    def_step(m);
    def(m, "global_norm", [](const Arguments& a) { return global_norm(a[0]); }, global_norm_doc, {{"grads"}});
    def(m, "lookahead", [](const Arguments& a) { return lookahead(a[0], a[1], a[2]); }, lookahead_doc,
        {{"params"}, {"state"}, {"out", py::none()}});
    def(m, "get_num_threads", [](const Arguments&) { return requested_threads(); }, get_num_threads_doc, {});
    def(m, "set_num_threads", [](const Arguments& a) { request_threads(checked_count("threads", a[0], 1)); },
        set_num_threads_doc, {{"threads"}});

    py::list names;
    for (const char* name : {"ConcurrentStepError", "NonFiniteGradientError", "Rows", "State", "__version__",
                             "get_num_threads", "global_norm", "lookahead", "set_num_threads", "step"})
        names.append(name);
    for (const Rule& rule : all_rules())
        if (&rule == find_rule(rule.name)) names.append(rule.made_by);
    names.attr("sort")();
    m.attr("__all__") = names;

    def_c_api(m);
    def_shares(m);
    m.def(
        "unpickled",
        [](py::handle containers, py::handle rest) { return wrapped(State::unpickled(containers, rest)); },
        "What __reduce__ took apart.", py::call_guard<StandardArithmetic>());
    m.def("coefficients", &coefficients_dict,
          "The constants, in double, with which an array that has made so many steps makes the next one.",
          py::call_guard<StandardArithmetic>());
    m.def("config", &config, "What show_config() prints.");
    m.def("disable_isas", &disable_isas,
          "Take instruction sets away; return the names that cannot be taken.");
    m.def("use_isa", &use_isa, "Use this instruction set, for tests; False where the CPU lacks it.");
    m.def("usable_threads", &usable_threads, "The request, limited by what this process may use.");
    m.def("cgroup_cpus", &cgroup_cpus, "The CPUs that the cgroup mounted at root allows; 0 for no limit.");
}

// In Python 3.11, pybind11 waits for ever for the GIL in another interpreter, so this comes before it.
// In 3.13, it is called by the main one all the same, and what defines the module is called by the other.
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
    if (is_main_interpreter()) return PyInit__core_of_main();
    PyErr_SetString(PyExc_ImportError, main_alone);
    return nullptr;
}
