#include "python/numpy_types.hpp"

#include <cstring>
#include <string_view>

#include "plain/isa.hpp"

namespace fast_momentum {

namespace {

const PyTypeObject* type_of_scalars(PyObject* descr) {
    return reinterpret_cast<PyTypeObject*>(py::detail::array_descriptor_proxy(descr)->typeobj);
}

}  // namespace

const NumpyTypes& numpy_types() {
    static const auto& types = *new NumpyTypes;  // never deleted: there may be no interpreter by then
    return types;
}

// By the name of its type: whoever has such an array has imported ml_dtypes, and nobody else needs it.
bool NumpyTypes::is_bfloat16(PyObject* descr) const {
    const int number = py::detail::array_descriptor_proxy(descr)->type_num;
    constexpr int first_user_number = 256;
    if (number < first_user_number) return false;
    const std::string_view name = type_of_scalars(descr)->tp_name;
    if (number != bfloat16_number && name.substr(name.rfind('.') + 1) == "bfloat16" &&
        py::reinterpret_borrow<py::dtype>(descr).itemsize() == 2)
        bfloat16_number = number;
    return number == bfloat16_number;
}

py::object dtype_of_scalar(PyObject* scalar) {
    return owned(numpy_types().functions.PyArray_DescrFromScalar_(scalar));
}

double value_of_scalar(PyObject* scalar, PyObject* descr) {
    return PyFloat_AsDouble(owned(type_of_scalars(descr)->tp_as_number->nb_float(scalar)).ptr());
}

void copy_of_scalar(PyObject* scalar, PyObject* descr, void* to, std::size_t bytes) {
    Py_buffer buffer;
    if (type_of_scalars(descr)->tp_as_buffer->bf_getbuffer(scalar, &buffer, PyBUF_SIMPLE) != 0)
        throw py::error_already_set();
    std::memcpy(to, buffer.buf, bytes);
    PyBuffer_Release(&buffer);
}

std::vector<std::ptrdiff_t> strides_in_reals(const ArrayStruct& array, const DtypeKernels& dtype) {
    std::vector<std::ptrdiff_t> strides(array.strides, array.strides + array.nd);
    if (dtype.reals > 1) strides.push_back(static_cast<std::ptrdiff_t>(dtype.itemsize));
    return strides;
}

std::vector<std::ptrdiff_t> shape_in_reals(const ArrayStruct& array, const DtypeKernels& dtype) {
    std::vector<std::ptrdiff_t> shape(array.dimensions, array.dimensions + array.nd);
    if (dtype.reals > 1) shape.push_back(static_cast<std::ptrdiff_t>(dtype.reals));
    return shape;
}

Stored narrow_storage(const ArrayStruct& array) {
    if (!is_native(py::detail::array_descriptor_proxy(array.descr)->byteorder)) return Stored::native;
    if (dtype_number(array) == float16_number) return Stored::float16;
    return numpy_types().is_bfloat16(array.descr) ? Stored::bfloat16 : Stored::native;
}

std::size_t Found::itemsize() const {
    const Storage* storage = storage_of(stored);
    return storage ? storage->itemsize : dtype->itemsize;
}

}  // namespace fast_momentum
