/* Calls each function of fast_momentum from C; test_capi.py builds it. Addresses are integers. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fast_momentum.h>

static const fast_momentum_api* api;

#define ANSWER(call)                                 \
    do {                                             \
        PyThreadState* thread = PyEval_SaveThread(); \
        const int code = call;                       \
        PyEval_RestoreThread(thread);                \
        return PyLong_FromLong(code);                \
    } while (0)

#define DEFINE_STEP(name, T)                                                                               \
    static PyObject* name(PyObject* self, PyObject* args) {                                                \
        Py_ssize_t param, grad, velocity;                                                                  \
        long long n;                                                                                       \
        int form, flags;                                                                                   \
        double lr, momentum, dampening, weight_decay;                                                      \
        (void)self;                                                                                        \
        if (!PyArg_ParseTuple(args, "nnnLiidddd", &param, &grad, &velocity, &n, &form, &flags, &lr,        \
                              &momentum, &dampening, &weight_decay))                                       \
            return NULL;                                                                                   \
        ANSWER(api->name((T*)param, (const T*)grad, (T*)velocity, n, form, flags, lr, momentum, dampening, \
                         weight_decay));                                                                   \
    }

#define DEFINE_LOOKAHEAD(name, T)                                                                   \
    static PyObject* name(PyObject* self, PyObject* args) {                                         \
        Py_ssize_t out, param, velocity;                                                            \
        long long n;                                                                                \
        int form;                                                                                   \
        double lr, momentum;                                                                        \
        (void)self;                                                                                 \
        if (!PyArg_ParseTuple(args, "nnnLidd", &out, &param, &velocity, &n, &form, &lr, &momentum)) \
            return NULL;                                                                            \
        ANSWER(api->name((T*)out, (const T*)param, (const T*)velocity, n, form, lr, momentum));     \
    }

DEFINE_STEP(step_float32, float)
DEFINE_STEP(step_float64, double)
DEFINE_LOOKAHEAD(lookahead_float32, float)
DEFINE_LOOKAHEAD(lookahead_float64, double)

static PyObject* step(PyObject* self, PyObject* args) {
    Py_ssize_t param, grad, velocity;
    long long n;
    int dtype, form, flags;
    double lr, momentum, dampening, weight_decay;
    (void)self;
    if (!PyArg_ParseTuple(args, "innnLiidddd", &dtype, &param, &grad, &velocity, &n, &form, &flags, &lr,
                          &momentum, &dampening, &weight_decay))
        return NULL;
    ANSWER(api->step(dtype, (void*)param, (const void*)grad, (void*)velocity, n, form, flags, lr, momentum,
                     dampening, weight_decay));
}

static PyObject* lookahead(PyObject* self, PyObject* args) {
    Py_ssize_t out, param, velocity;
    long long n;
    int dtype, form;
    double lr, momentum;
    (void)self;
    if (!PyArg_ParseTuple(args, "innnLidd", &dtype, &out, &param, &velocity, &n, &form, &lr, &momentum))
        return NULL;
    ANSWER(
        api->lookahead(dtype, (void*)out, (const void*)param, (const void*)velocity, n, form, lr, momentum));
}

static PyObject* message(PyObject* self, PyObject* code) {
    (void)self;
    return PyUnicode_FromString(api->message((int)PyLong_AsLong(code)));
}

#if FAST_MOMENTUM_ABI_VERSION >= 2

/* The bytes of the struct, with its size and all members by name. */
static PyObject* settings(PyObject* self, PyObject* args) {
    int rule;
    long long flags, steps;
    double lr, momentum, dampening, weight_decay, nu;
    (void)self;
    if (!PyArg_ParseTuple(args, "iLLddddd", &rule, &flags, &steps, &lr, &momentum, &dampening, &weight_decay,
                          &nu))
        return NULL;
    const fast_momentum_settings settings = {.size = sizeof settings,
                                             .rule = rule,
                                             .flags = flags,
                                             .steps = steps,
                                             .lr = lr,
                                             .momentum = momentum,
                                             .dampening = dampening,
                                             .weight_decay = weight_decay,
                                             .nu = nu};
    return PyBytes_FromStringAndSize((const char*)&settings, sizeof settings);
}

static PyObject* update(PyObject* self, PyObject* args) {
    Py_ssize_t settings, param, grad, velocity;
    long long n;
    int dtype;
    (void)self;
    if (!PyArg_ParseTuple(args, "ninnnL", &settings, &dtype, &param, &grad, &velocity, &n)) return NULL;
    ANSWER(api->update((const fast_momentum_settings*)settings, dtype, (void*)param, (const void*)grad,
                       (void*)velocity, n));
}

static PyObject* lookahead_with(PyObject* self, PyObject* args) {
    Py_ssize_t settings, out, param, velocity;
    long long n;
    int dtype;
    (void)self;
    if (!PyArg_ParseTuple(args, "ninnnL", &settings, &dtype, &out, &param, &velocity, &n)) return NULL;
    ANSWER(api->lookahead_with((const fast_momentum_settings*)settings, dtype, (void*)out, (const void*)param,
                               (const void*)velocity, n));
}

static PyObject* adam_settings(PyObject* self, PyObject* args) {
    int form;
    long long flags, steps;
    double lr, beta1, beta2, eps, weight_decay;
    (void)self;
    if (!PyArg_ParseTuple(args, "iLLddddd", &form, &flags, &steps, &lr, &beta1, &beta2, &eps, &weight_decay))
        return NULL;
    const fast_momentum_adam_settings settings = {.size = sizeof settings,
                                                  .form = form,
                                                  .flags = flags,
                                                  .steps = steps,
                                                  .lr = lr,
                                                  .beta1 = beta1,
                                                  .beta2 = beta2,
                                                  .eps = eps,
                                                  .weight_decay = weight_decay};
    return PyBytes_FromStringAndSize((const char*)&settings, sizeof settings);
}

static PyObject* adam(PyObject* self, PyObject* args) {
    Py_ssize_t settings, param, grad, velocity, second_moment, second_moment_maximum;
    long long n;
    int dtype;
    (void)self;
    if (!PyArg_ParseTuple(args, "ninnnnnL", &settings, &dtype, &param, &grad, &velocity, &second_moment,
                          &second_moment_maximum, &n))
        return NULL;
    ANSWER(api->adam((const fast_momentum_adam_settings*)settings, dtype, (void*)param, (const void*)grad,
                     (void*)velocity, (void*)second_moment, (void*)second_moment_maximum, n));
}

#endif

static PyMethodDef methods[] = {{"step_float32", step_float32, METH_VARARGS, NULL},
                                {"step_float64", step_float64, METH_VARARGS, NULL},
                                {"step", step, METH_VARARGS, NULL},
                                {"lookahead_float32", lookahead_float32, METH_VARARGS, NULL},
                                {"lookahead_float64", lookahead_float64, METH_VARARGS, NULL},
                                {"lookahead", lookahead, METH_VARARGS, NULL},
                                {"message", message, METH_O, NULL},
#if FAST_MOMENTUM_ABI_VERSION >= 2
                                {"settings", settings, METH_VARARGS, NULL},
                                {"update", update, METH_VARARGS, NULL},
                                {"lookahead_with", lookahead_with, METH_VARARGS, NULL},
                                {"adam_settings", adam_settings, METH_VARARGS, NULL},
                                {"adam", adam, METH_VARARGS, NULL},
#endif
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "consumer_c", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_consumer_c(void) {
    api = fast_momentum_import();
    return api ? PyModule_Create(&module) : NULL;
}
