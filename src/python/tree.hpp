// Containers -> leaves with paths. A leaf is whatever is no list, tuple, dict, read-only view of a dict or
// dataclass; what it has to be is for checks.cpp to say. Lists, tuples and dicts are read through their base
// type: no overridden method runs. The fields of a dataclass are read like attributes, as a dict.
//
// Without a GIL, another thread may change a list or dict at any time. So items are read in a critical
// section of their container (pybind11's, which is nothing where there is a GIL), and held before it ends.
// Python code that runs in one may end it.
#pragma once

#include <pybind11/pybind11.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace fast_momentum {

namespace py = pybind11;

// Strong references to the leaves of one container, in the order of the tree.
class Leaves {
  public:
    Leaves() = default;
    Leaves(const Leaves&) = delete;
    Leaves& operator=(const Leaves&) = delete;
    ~Leaves() { clear(); }

    void push(PyObject* leaf) {
        items_.push_back(leaf);
        Py_INCREF(leaf);
    }
    void shrink(std::size_t size) {
        for (std::size_t i = size; i < items_.size(); ++i) Py_DECREF(items_[i]);
        items_.resize(size);
    }
    void clear() { shrink(0); }
    std::size_t size() const { return items_.size(); }
    PyObject* operator[](std::size_t i) const { return items_[i]; }

  private:
    std::vector<PyObject*> items_;
};

inline py::list listed(const Leaves& leaves) {
    py::list list;
    for (std::size_t i = 0; i < leaves.size(); ++i) list.append(py::handle(leaves[i]));
    return list;
}

// Where a container lies, written out only when a message needs it.
struct Path {
    const Path* parent;
    const char* root;     // of the outermost container, as the user knows it
    PyObject* key;        // in a dict
    std::size_t index;    // in a list or tuple
    PyObject* container;  // what lies here

    static Path of(const char* root) { return {nullptr, root, nullptr, 0, nullptr}; }
    Path item(PyObject* key_) const { return {this, root, key_, 0, nullptr}; }
    Path item(std::size_t index_) const { return {this, root, nullptr, index_, nullptr}; }
    std::string str() const;
};

// The structure of the params given to init().
class Tree {
  public:
    struct Node {
        enum Kind { leaf, sequence, mapping };
        Kind kind = leaf;
        std::size_t first_leaf = 0, n_leaves = 1;
        std::size_t size = 0;          // number of items
        py::object type;               // of the container given to init()
        std::vector<py::object> keys;  // of a mapping
        std::vector<Node> children;    // empty where every item is a leaf

        // Call visit(i, child) for each item.
        template <class Visit>
        void each(Visit visit) const {
            Node item;
            for (std::size_t i = 0; i < size; ++i) {
                item.first_leaf = first_leaf + i;
                visit(i, children.empty() ? item : children[i]);
            }
        }

        template <class Visit>
        void each_object(const Visit& visit) {
            visit(type);
            for (py::object& key : keys) visit(key);
            for (Node& child : children) child.each_object(visit);
        }
    };

    // Read the structure of `params`, which messages call `root`, and append its leaves.
    Tree(py::handle params, const char* root, Leaves& leaves);

    // Append the leaves of `object`, which must have this structure. `as` says whose structure that is.
    void match(py::handle object, const char* root, const char* as, Leaves& leaves) const;

    // New containers of the types given to init(), with item(i) for leaf i.
    py::object build(const std::function<py::object(std::size_t)>& item) const;
    // The same, but with tuples for lists, and nothing to assign to in the others.
    py::object build_read_only(const std::function<py::object(std::size_t)>& item) const;

    // The place of leaf i, such as ['encoder'][2].
    std::string path(std::size_t i) const;

    // Calls visit(object) with each object of Python that is kept here, for garbage collection.
    template <class Visit>
    void each_object(const Visit& visit) {
        root_.each_object(visit);
    }

    const Node& root() const { return root_; }
    std::size_t n_leaves() const { return root_.n_leaves; }

  private:
    Node root_;
};

inline bool is_sequence(py::handle object) {
    return PyList_Check(object.ptr()) || PyTuple_Check(object.ptr());
}

// A dict, its read-only view or the fields of a dataclass, as a dict; null for another object.
py::object as_dict(py::handle object);

// What fast_momentum._messages adds to a message, in `function` of it.
std::string way_out(const char* function, const py::tuple& arguments);

// The items of a dict, as they are at one moment.
std::vector<std::pair<py::object, py::object>> held_items(py::handle dict);

// The items of `object`, a list or tuple, must be as many as those of `node`.
void check_length(const Tree::Node& node, py::handle object, const Path& path, const char* as);

// The keys of `object`, a dict, must be those of `node`.
void check_keys(const Tree::Node& node, py::handle object, const Path& path, const char* as);

// The item of `object`, a dict, for key `at` of `node`.
py::object item_at(const Tree::Node& node, std::size_t at, py::handle object, const Path& path,
                   const char* as);

// The object that a function of Python's C interface has returned; throws where there is none.
py::object owned(PyObject* object);

// As UTF-8, with an escape for what that cannot hold.
std::string text_of(py::handle string);
// repr(object), whole and for messages; and its type as in numpy.ndarray, dict, torch.Tensor.
std::string repr_of(py::handle object);
std::string brief(py::handle object);
std::string type_name(py::handle object);

}  // namespace fast_momentum
