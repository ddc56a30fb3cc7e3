"""Every mutant of a source file in C++ or Python: a small change, of which a test should notice each."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import tree_sitter_cpp
import tree_sitter_python
from tree_sitter import Language, Parser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tree_sitter import Node

PARSERS = {
    ".cpp": Parser(Language(tree_sitter_cpp.language())),
    ".hpp": Parser(Language(tree_sitter_cpp.language())),
    ".py": Parser(Language(tree_sitter_python.language())),
}

# What is said, named or declared, and what no test can see.
SKIPPED = {
    "alias_declaration", "assert_statement", "attribute_declaration", "comment", "decorator", "enumerator",
    "future_import_statement", "import_from_statement", "import_statement", "preproc_call", "preproc_def",
    "preproc_function_def", "preproc_include", "raise_statement", "raw_string_literal", "static_assert_declaration",
    "string", "string_literal", "template_parameter_list", "throw_statement", "type", "using_declaration",
}  # fmt: skip

OPERATIONS = {
    "augmented_assignment", "assignment_expression", "binary_expression", "binary_operator", "boolean_operator",
    "comparison_operator", "update_expression",
}  # fmt: skip
OPERATORS = {
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "is": "is not", "is not": "is", "in": "not in",
    "not in": "in", "and": "or", "or": "and", "&&": "||", "||": "&&", "+": "-", "-": "+", "*": "/", "/": "*", "//": "*",
    "%": "*", "**": "*", "&": "|", "|": "&", "^": "&", "<<": ">>", ">>": "<<", "+=": "-=", "-=": "+=", "*=": "/=",
    "/=": "*=", "|=": "&=", "&=": "|=", "++": "--", "--": "++",
}  # fmt: skip
SIGNS = {"unary_expression", "unary_operator", "not_operator"}
NUMBERS = {"number_literal", "integer", "float"}
WORDS = {
    "true": "false", "false": "true", "True": "False", "False": "True", "0": "1", "1": "0", "min": "max", "max": "min",
    "minimum": "maximum", "maximum": "minimum", "any": "all", "all": "any",
}  # fmt: skip
CALLS = {"call", "call_expression"}
STATEMENTS = CALLS | {"assignment", "assignment_expression", "augmented_assignment", "update_expression"}
BRANCHES = {"if_statement", "elif_clause", "else_clause"}
BLOCKS = {"block", "compound_statement"}


class Mutant(NamedTuple):
    file: str
    start: int  # in bytes
    end: int
    new: bytes

    def of(self, source: bytes) -> bytes:
        return source[: self.start] + self.new + source[self.end :]


def mutants(root: Path, file: str) -> list[Mutant]:
    path = root / file
    found = _changes(PARSERS[path.suffix].parse(path.read_bytes()).root_node, path.suffix == ".py")
    return [Mutant(file, start, end, new) for start, end, new in found]


def _changes(node: Node, python: bool) -> Iterator[tuple[int, int, bytes]]:
    if node.type in SKIPPED or _is_for_types(node):
        return
    parent = node.parent.type if node.parent else ""
    text = node.text or b""
    if not node.is_named:
        if parent in OPERATIONS and node.type in OPERATORS and not _speaks(node.parent):
            yield node.start_byte, node.end_byte, OPERATORS[node.type].encode()
        elif parent in SIGNS and node.type in ("!", "not", "-"):
            yield node.start_byte, node.end_byte, b""
    elif node.child_count == 0 and text.decode() in WORDS:
        yield node.start_byte, node.end_byte, WORDS[text.decode()].encode()
    elif node.type in NUMBERS and parent != "array_declarator":
        yield node.start_byte, node.end_byte, b"(%b + 1)" % text
    elif _may_be_left_out(node):
        yield node.start_byte, node.end_byte, b"pass" if python else b";"
    elif node.type == "argument_list":
        yield from _swaps(node)
    if condition := _condition(node):
        negated = b"not (%b)" if python else b"!(%b)"
        yield condition.start_byte, condition.end_byte, negated % condition.text
    for child in node.children:
        if not (node.type == "preproc_if" and child == node.child_by_field_name("condition")):
            yield from _changes(child, python)


def _is_for_types(node: Node) -> bool:
    return node.type == "if_statement" and b"TYPE_CHECKING" in (node.children[1].text or b"")


def _speaks(node: Node | None) -> bool:
    """Parts of messages are joined with +."""
    return node is not None and (
        node.type in ("string", "string_literal") or any(_speaks(child) for child in node.children)
    )


def _may_be_left_out(node: Node) -> bool:
    if node.type in ("break_statement", "continue_statement"):
        return True
    if node.type == "return_statement":  # in a branch, so that there is another way to go on
        above = node.parent.parent if node.parent and node.parent.type in BLOCKS else node.parent
        return above is not None and above.type in BRANCHES
    if node.type != "expression_statement" or node.named_child_count != 1:
        return False
    (statement,) = node.named_children
    target = statement.child_by_field_name("left")
    makes_a_name = statement.type == "assignment" and target is not None and "identifier" in target.type
    return statement.type in STATEMENTS and not makes_a_name  # without which nothing would run


def _swaps(arguments: Node) -> Iterator[tuple[int, int, bytes]]:
    given = [child for child in arguments.named_children if child.type != "comment"]
    for a, b in itertools.pairwise(given):
        alike = a.type == b.type and a.text != b.text and a.type not in ("keyword_argument", "list_splat")
        if alike and not _speaks(a) and not _speaks(b):
            between = arguments.text[a.end_byte - arguments.start_byte : b.start_byte - arguments.start_byte]
            yield a.start_byte, b.end_byte, b.text + between + a.text


def _condition(node: Node) -> Node | None:
    if node.type == "preproc_if":
        return None
    if node.type == "if_clause":
        return node.named_children[0]
    if node.type == "conditional_expression" and not node.child_by_field_name("condition"):
        return node.children[2]  # of Python
    found = node.child_by_field_name("condition")
    if found is not None and found.type == "condition_clause":
        found = found.child_by_field_name("value")
    return None if found is None or found.type == "declaration" else found
