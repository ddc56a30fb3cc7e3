// What NumPy's objects are, read without a call of Python.
#pragma once

#include <pybind11/numpy.h>

#include <atomic>
#include <vector>

#include "kernels/compilers.hpp"
#include "kernels/kernels.hpp"
#include "python/tree.hpp"

namespace fast_momentum {

using ArrayStruct = py::detail::PyArray_Proxy;

constexpr int c_contiguous = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_;
constexpr int f_contiguous = py::detail::npy_api::NPY_ARRAY_F_CONTIGUOUS_;
constexpr int aligned = py::detail::npy_api::NPY_ARRAY_ALIGNED_;
constexpr int writeable = py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
constexpr int contiguous = c_contiguous | f_contiguous;

constexpr int float16_number = 23;  // numpy.dtype.num

// The types that are taken for an array. Other subclasses may mean something else by their elements.
struct NumpyTypes {
    py::object ndarray = py::module_::import("numpy").attr("ndarray");
    py::object memmap = py::module_::import("numpy").attr("memmap");
    py::object generic = py::module_::import("numpy").attr("generic");
    const py::detail::npy_api& functions = py::detail::npy_api::get();  // which asks for a version, in Python
    mutable std::atomic<int> bfloat16_number{-1};  // of the dtype that ml_dtypes registers, once one was seen

    bool is_array(PyObject* object) const {
        const auto* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
        return type == ndarray.ptr() || type == memmap.ptr();
    }
    // By its own type, whatever its __class__ is said to be.
    bool is_scalar(PyObject* object) const {
        return PyObject_TypeCheck(object, reinterpret_cast<PyTypeObject*>(generic.ptr()));
    }
    bool is_bfloat16(PyObject* descr) const;
};

// Of a NumPy scalar: its dtype, and its value, a real number of that dtype, or as it lies in memory. NumPy's
// own, where a subclass has other methods.
py::object dtype_of_scalar(PyObject* scalar);
double value_of_scalar(PyObject* scalar, PyObject* descr);
void copy_of_scalar(PyObject* scalar, PyObject* descr, void* to, std::size_t bytes);

// Found when the module is imported.
const NumpyTypes& numpy_types();

inline const ArrayStruct& array_struct(PyObject* array) {
    return *py::detail::array_proxy(array);
}

inline int dtype_number(const ArrayStruct& array) {
    return py::detail::array_descriptor_proxy(array.descr)->type_num;
}

INLINED bool is_native(char byteorder) {
    return byteorder == '=' || byteorder == '|' || byteorder == (PY_LITTLE_ENDIAN ? '<' : '>');
}

INLINED bool has_dtype(const ArrayStruct& array, const DtypeKernels& dtype) {
    const auto* descr = py::detail::array_descriptor_proxy(array.descr);
    return descr->type_num == dtype.number && is_native(descr->byteorder);
}

// As what an array that is worked on in float32 may be stored: native where it is none of them.
Stored narrow_storage(const ArrayStruct& array);

// In which dtype an array is worked on, and as what it is stored.
struct Found {
    const DtypeKernels* dtype;
    Stored stored;

    std::size_t itemsize() const;  // of a real
};

// Strides of `array` in reals, those of a complex number being its last dimension; and the shape of it.
std::vector<std::ptrdiff_t> strides_in_reals(const ArrayStruct& array, const DtypeKernels& dtype);
std::vector<std::ptrdiff_t> shape_in_reals(const ArrayStruct& array, const DtypeKernels& dtype);

}  // namespace fast_momentum
