#include "python/tree.hpp"

#include <pybind11/critical_section.h>

#include <algorithm>
#include <unordered_set>

#include "python/ending.hpp"

namespace fast_momentum {

namespace {

constexpr std::size_t max_depth = 100;

std::size_t size_of(py::handle container) {
    PyObject* object = container.ptr();
    return static_cast<std::size_t>(PyDict_Check(object) ? PyDict_GET_SIZE(object)
                                                         : PySequence_Fast_GET_SIZE(object));
}

// Like repr(), for a list of keys that is short enough for a message.
std::string listed(const std::vector<py::object>& keys) {
    constexpr std::size_t shown = 5;
    std::string text;
    for (std::size_t i = 0; i < std::min(keys.size(), shown); ++i) text += (i ? ", " : "") + brief(keys[i]);
    if (keys.size() > shown) text += " and " + std::to_string(keys.size() - shown) + " more";
    return text;
}

// A container of this type, from the base's own constructor. Raises where an instance would need more than
// that, as one of a type written in C may.
py::object new_container(py::handle type, PyTypeObject& base, const py::args& items) {
    return py::handle(reinterpret_cast<PyObject*>(&base)).attr("__new__")(type, *items);
}

// What instances of a type of containers are made by; `object`, if it is that of dataclasses.
PyTypeObject& base_of(py::handle type) {
    for (PyTypeObject* base : {&PyDict_Type, &PyList_Type, &PyTuple_Type})
        if (PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(type.ptr()), base)) return *base;
    return PyBaseObject_Type;
}

// Reads a structure for the first time: anything goes that is not too deep and does not repeat itself.
class Reader {
  public:
    explicit Reader(Leaves& leaves) : leaves_(leaves) {}

    Tree::Node read(py::handle object, Path path, std::size_t depth) {
        Tree::Node node;
        node.first_leaf = leaves_.size();
        const py::object items =
            is_sequence(object) ? py::reinterpret_borrow<py::object>(object) : as_dict(object);
        if (!items) {
            leaves_.push(object.ptr());
            return node;
        }
        path.container = object.ptr();
        check(object, size_of(items), path, depth);
        PyTypeObject* type =
            Py_TYPE(object.ptr()) == &PyDictProxy_Type ? &PyDict_Type : Py_TYPE(object.ptr());
        node.type = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(type));
        if (PyDict_Check(items.ptr()))
            read_mapping(node, items, path, depth);
        else
            read_sequence(node, items, path, depth);
        node.size = node.children.size();
        node.n_leaves = leaves_.size() - node.first_leaf;
        const auto is_leaf = [](const Tree::Node& child) { return child.kind == Tree::Node::leaf; };
        if (std::all_of(node.children.begin(), node.children.end(), is_leaf)) node.children.clear();
        return node;
    }

  private:
    void read_sequence(Tree::Node& node, py::handle object, const Path& path, std::size_t depth) {
        node.kind = Tree::Node::sequence;
        const auto items = PyList_Check(object.ptr()) ? py::tuple(owned(PyList_AsTuple(object.ptr())))
                                                      : py::reinterpret_borrow<py::tuple>(object);
        for (const py::handle item : items)
            node.children.push_back(read(item, path.item(node.children.size()), depth + 1));
    }

    void read_mapping(Tree::Node& node, py::handle object, const Path& path, std::size_t depth) {
        node.kind = Tree::Node::mapping;
        for (auto& [key, item] : held_items(object)) {
            node.children.push_back(read(item, path.item(key.ptr()), depth + 1));
            node.keys.push_back(std::move(key));
        }
    }

    void check(py::handle object, std::size_t size, const Path& path, std::size_t depth) {
        check_type(object, path);
        for (const Path* above = path.parent; above; above = above->parent)
            if (above->container == object.ptr())
                throw py::value_error(path.str() + " must hold arrays, not " + above->str() +
                                      ", the container that holds it");
        if (depth >= max_depth)
            throw py::value_error(path.str() + " must be at most " + std::to_string(max_depth) +
                                  " levels deep, not deeper");
        // A shared container would give its arrays twice; without this a few lists of lists of one list could
        // stand for more leaves than there is memory.
        if (size > 0 && !seen_.insert(object.ptr()).second)
            throw py::value_error(path.str() +
                                  " must not be a container that stands elsewhere in params too" +
                                  "; give each array once");
    }

    // Velocities come back in containers of this type, so it must be possible to make one.
    static void check_type(py::handle object, const Path& path) {
        const py::handle type = py::type::handle_of(object);
        PyTypeObject& base = base_of(type);
        if (Py_TYPE(object.ptr()) == &base || Py_TYPE(object.ptr()) == &PyDictProxy_Type) return;
        try {
            new_container(type, base, py::args());
        } catch (py::error_already_set& error) {
            if (!error.matches(PyExc_TypeError)) throw;
            throw py::type_error(path.str() + " must be a list, tuple or dict, not " + type_name(object) +
                                 ", of which no other can be made; pass " +
                                 (&base == &PyBaseObject_Type ? "a dict of its fields" : "tuple() of it"));
        }
    }

    Leaves& leaves_;
    std::unordered_set<PyObject*> seen_;
};

[[noreturn]] void refuse_kind(const Tree::Node& node, py::handle object, const Path& path, const char* as) {
    std::string message = path.str() + " must be a " +
                          (node.kind == Tree::Node::mapping ? "dict" : "list or tuple") + ", as in " + as +
                          ", not " + type_name(object);
    message += object.is_none() ? "; None stands for the gradient of a single array"
                                : way_out("of_container", py::make_tuple(object, path.str()));
    throw py::type_error(message);
}

// Matches a container against a structure and collects its leaves. No Python code runs in here, except that
// of keys which are compared; so containers are held while their items are read.
class Matcher {
  public:
    Matcher(const char* as, Leaves& leaves) : as_(as), leaves_(leaves) {}

    void match(const Tree::Node& node, py::handle handle, const Path& path) {
        if (node.kind == Tree::Node::leaf) return leaves_.push(handle.ptr());
        const py::object object = py::reinterpret_borrow<py::object>(handle);
        if (node.kind == Tree::Node::mapping) {
            if (!PyDict_Check(object.ptr())) return match_fields(node, object, path);
            if (!match_in_order(node, object)) match_by_key(node, object, path);
        } else {
            if (!is_sequence(object)) refuse_kind(node, object, path, as_);
            match_sequence(node, object, path);
        }
    }

  private:
    void match_sequence(const Tree::Node& node, py::handle object, const Path& path) {
        if (node.children.empty()) {
            const py::scoped_critical_section held(object);
            check_length(node, object, path, as_);
            PyObject** items = PySequence_Fast_ITEMS(object.ptr());
            for (std::size_t i = 0; i < node.size; ++i) leaves_.push(items[i]);
            return;
        }
        check_length(node, object, path, as_);
        for (std::size_t i = 0; i < node.size; ++i)
            match(node.children[i], held_item(node, i, object, path), path.item(i));
    }

    py::object held_item(const Tree::Node& node, std::size_t i, py::handle object, const Path& path) {
        const py::scoped_critical_section held(object);
        check_length(node, object, path, as_);  // comparing keys may have changed it
        return py::reinterpret_borrow<py::object>(
            PySequence_Fast_GET_ITEM(object.ptr(), static_cast<Py_ssize_t>(i)));
    }

    // The common case, without a look-up: the same keys, the same objects, in the same order.
    bool match_in_order(const Tree::Node& node, py::handle object) {
        const py::scoped_critical_section held(object);
        if (!node.children.empty() || size_of(object) != node.size) return false;
        const std::size_t begin = leaves_.size();
        PyObject *key, *item;
        Py_ssize_t position = 0;
        for (std::size_t i = 0; PyDict_Next(object.ptr(), &position, &key, &item); ++i) {
            if (key != node.keys[i].ptr()) {
                leaves_.shrink(begin);
                return false;
            }
            leaves_.push(item);
        }
        return true;
    }

    // Apart, as nearly all mappings are dicts.
    void match_fields(const Tree::Node& node, const py::object& object, const Path& path) {
        const py::object fields = as_dict(object);
        if (!fields) refuse_kind(node, object, path, as_);
        match_by_key(node, fields, path);
    }

    void match_by_key(const Tree::Node& node, py::handle object, const Path& path) {
        if (size_of(object) != node.size) check_keys(node, object, path, as_);
        node.each([&](std::size_t i, const Tree::Node& child) {
            match(child, item_at(node, i, object, path, as_), path.item(node.keys[i].ptr()));
        });
    }

    const char* as_;
    Leaves& leaves_;
};

void put(py::handle mapping, py::handle key, py::handle item) {
    const int failed = PyODict_Check(mapping.ptr()) ? PyODict_SetItem(mapping.ptr(), key.ptr(), item.ptr())
                       : PyDict_Check(mapping.ptr())
                           ? PyDict_SetItem(mapping.ptr(), key.ptr(), item.ptr())
                           : PyObject_GenericSetAttr(mapping.ptr(), key.ptr(), item.ptr());
    if (failed) throw py::error_already_set();
}

// A dataclass of this type that nothing can be assigned to.
py::object frozen(const py::object& type) {
    return called(py::module_::import("fast_momentum._containers").attr("frozen"), py::make_tuple(type));
}

// The constructor and methods of a subclass are passed by, as when it was read.
py::object build_node(const Tree::Node& node, const std::function<py::object(std::size_t)>& item,
                      bool read_only) {
    if (node.kind == Tree::Node::leaf) return item(node.first_leaf);
    if (node.kind == Tree::Node::mapping) {
        PyTypeObject& base = PyType_Check(node.type.ptr()) ? base_of(node.type) : PyDict_Type;
        const bool is_dict = &base == &PyDict_Type;
        py::object mapping =
            new_container(read_only && !is_dict ? frozen(node.type) : node.type, base, py::args());
        node.each([&](std::size_t i, const Tree::Node& child) {
            put(mapping, node.keys[i], build_node(child, item, read_only));
        });
        return read_only && is_dict ? owned(PyDictProxy_New(mapping.ptr())) : mapping;
    }
    // No type where the State was cleared by garbage collection, which new_container() refuses.
    const bool is_list = PyType_Check(node.type.ptr()) &&
                         PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(node.type.ptr()), &PyList_Type);
    py::object items = is_list && !read_only ? new_container(node.type, PyList_Type, py::args()) : py::list();
    node.each([&](std::size_t, const Tree::Node& child) {
        if (PyList_Append(items.ptr(), build_node(child, item, read_only).ptr()))
            throw py::error_already_set();
    });
    if (is_list) return read_only ? py::tuple(items) : items;
    return new_container(node.type, PyTuple_Type, py::make_tuple(items));
}

}  // namespace

py::object as_dict(py::handle object) {
    if (PyDict_Check(object.ptr())) return py::reinterpret_borrow<py::object>(object);
    if (Py_TYPE(object.ptr()) == &PyDictProxy_Type)
        return py::dict(py::reinterpret_borrow<py::object>(object));
    // A dataclass is a class of Python; an array is none, and is not to be asked for what it has not.
    if (!PyType_HasFeature(Py_TYPE(object.ptr()), Py_TPFLAGS_HEAPTYPE) ||
        !py::hasattr(py::type::handle_of(object), "__dataclass_fields__"))
        return {};
    return called(py::module_::import("fast_momentum._containers").attr("fields_of"), py::make_tuple(object));
}

std::string way_out(const char* function, const py::tuple& arguments) {
    return text_of(called(py::module_::import("fast_momentum._messages").attr(function), arguments));
}

std::vector<std::pair<py::object, py::object>> held_items(py::handle dict) {
    const py::scoped_critical_section held(dict);
    std::vector<std::pair<py::object, py::object>> items;
    PyObject *key, *item;
    for (Py_ssize_t position = 0; PyDict_Next(dict.ptr(), &position, &key, &item);)
        items.emplace_back(py::reinterpret_borrow<py::object>(key), py::reinterpret_borrow<py::object>(item));
    return items;
}

py::object item_at(const Tree::Node& node, std::size_t at, py::handle object, const Path& path,
                   const char* as) {
#if PY_VERSION_HEX >= 0x030D0000
    PyObject* item = nullptr;
    PyDict_GetItemRef(object.ptr(), node.keys[at].ptr(), &item);
    if (item) return py::reinterpret_steal<py::object>(item);
#else
    PyObject* item = PyDict_GetItemWithError(object.ptr(), node.keys[at].ptr());
    if (item) return py::reinterpret_borrow<py::object>(item);
#endif
    if (PyErr_Occurred()) throw py::error_already_set();
    check_keys(node, object, path, as);
    throw py::value_error(path.str() +
                          " must keep its keys while they are compared, not lose and regain them");
}

py::object owned(PyObject* object) {
    if (!object) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(object);
}

std::string text_of(py::handle string) {
    std::string text = py::bytes(owned(PyUnicode_AsEncodedString(string.ptr(), "utf-8", "backslashreplace")));
    // Exceptions would end there.
    for (std::size_t at = 0; (at = text.find('\0', at)) != text.npos;) text.replace(at, 1, "\\x00");
    return text;
}

std::string repr_of(py::handle object) {
    return text_of(py::repr(object));
}

std::string brief(py::handle object) {
    constexpr std::size_t most = 80;
    const py::str text = py::repr(object);
    return py::len(text) <= most ? text_of(text) : text_of(text[py::slice(0, most, 1)]) + "...";
}

std::string type_name(py::handle object) {
    const py::handle type = py::type::handle_of(object);
    const std::string module = text_of(py::str(type.attr("__module__")));
    const std::string name = text_of(py::str(type.attr("__qualname__")));
    return module == "builtins" ? (name == "NoneType" ? "None" : name) : module + "." + name;
}

std::string Path::str() const {
    if (!parent) return root;
    return parent->str() + "[" + (key ? repr_of(key) : std::to_string(index)) + "]";
}

void check_length(const Tree::Node& node, py::handle object, const Path& path, const char* as) {
    const std::size_t size = size_of(object);
    if (size == node.size) return;
    throw py::value_error(path.str() + " must have " + std::to_string(node.size) +
                          (node.size == 1 ? " item" : " items") + ", as in " + as + ", not " +
                          std::to_string(size));
}

void check_keys(const Tree::Node& node, py::handle object, const Path& path, const char* as) {
    std::vector<py::object> missing, unexpected;
    for (const py::object& key : node.keys) {
        const int found = PyDict_Contains(object.ptr(), key.ptr());
        if (found < 0) throw py::error_already_set();
        if (!found) missing.push_back(key);
    }
    if (missing.empty() && size_of(object) == node.size) return;
    py::set expected;
    for (const py::object& key : node.keys) expected.add(key);
    const py::list given = owned(PyDict_Keys(object.ptr()));
    for (const py::handle key : given)
        if (!expected.contains(key)) unexpected.push_back(py::reinterpret_borrow<py::object>(key));
    std::string message = path.str() + " must have the same keys as in " + as + ", not";
    if (!missing.empty()) message += " lack " + listed(missing);
    if (!unexpected.empty())
        message += std::string(missing.empty() ? "" : " and") + " have " + listed(unexpected) + " besides";
    throw py::value_error(message);
}

Tree::Tree(py::handle params, const char* root, Leaves& leaves)
    : root_(Reader(leaves).read(params, Path::of(root), 0)) {}

void Tree::match(py::handle object, const char* root, const char* as, Leaves& leaves) const {
    Matcher(as, leaves).match(root_, object, Path::of(root));
}

py::object Tree::build(const std::function<py::object(std::size_t)>& item) const {
    return build_node(root_, item, false);
}

py::object Tree::build_read_only(const std::function<py::object(std::size_t)>& item) const {
    return build_node(root_, item, true);
}

std::string Tree::path(std::size_t i) const {
    std::string text;
    const Node* node = &root_;
    while (node->kind != Node::leaf) {
        const std::vector<Node>& children = node->children;
        std::size_t at = i - node->first_leaf;  // where each item is a leaf
        if (!children.empty()) {
            const auto after = [](std::size_t leaf, const Node& child) {
                return leaf < child.first_leaf + child.n_leaves;
            };
            at = static_cast<std::size_t>(std::upper_bound(children.begin(), children.end(), i, after) -
                                          children.begin());
        }
        text += "[" + (node->kind == Node::mapping ? repr_of(node->keys[at]) : std::to_string(at)) + "]";
        if (children.empty()) break;
        node = &children[at];
    }
    return text;
}

}  // namespace fast_momentum
