"""Compiles filter expressions: ``reward > 0.5 and "abc" in response and metadata.level in (1, 2)``. Pure.

They are a part of Python's syntax: literals, field names, ``rewards.<name>`` and ``metadata.<name>``, comparisons,
``and or not``, ``+ - * / // %`` of numbers, lists and tuples. There are no calls, so an expression can do nothing but
return a value. A value that an event does not have is ``None``; it is neither larger nor smaller than any other.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from consumers.replay import SelectionError
from consumers.replay.selected_event import FILTERABLE, MAPPINGS, RENAMED, SelectedEvent, mapping_value

MAX_CHARS = 10_000
MAX_DEPTH = 100
"""Most operations nested in each other."""

Filter = Callable[[SelectedEvent], bool]
_Value = Callable[[SelectedEvent], Any]

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def compile_filter(text: str) -> Filter:
    """Return the predicate that ``text`` describes.

    Raises SelectionError, which names the position, if ``text`` is not such an expression. The predicate raises it if
    it compares values of an event that cannot be compared, e.g. a text and a number.
    """
    if len(text) > MAX_CHARS:
        raise SelectionError(f"the filter has {len(text)} characters; at most {MAX_CHARS} are accepted")
    text = " ".join(text.splitlines()).strip()
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        # For an error at the end of the text, the parser names no position in it.
        at_end = error.lineno != 1 or not error.offset
        raise _fault(text, len(text) if at_end else (error.offset or 1) - 1, error.msg) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise SelectionError(f"the filter cannot be read: {error}") from error
    value = _Compiler(text).compile(tree.body, 0)
    return lambda event: bool(value(event))


def _fault(text: str, column: int, message: str) -> SelectionError:
    return SelectionError(f"filter, character {column + 1}: {message}\n  {text}\n  {' ' * column}^")


class _Compiler:
    """Turns each node into a function once, so that evaluating an event only calls functions."""

    def __init__(self, text: str) -> None:
        self._text = text

    def compile(self, node: ast.expr, depth: int) -> _Value:
        if depth > MAX_DEPTH:
            raise self._fault_at(node, f"more than {MAX_DEPTH} operations nested in each other")
        deeper = depth + 1
        match node:
            case ast.Constant(value=value) if value is None or isinstance(value, (bool, int, float, str)):
                return lambda _: value
            case ast.Name() | ast.Attribute():
                return self._field(node)
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                values = [self.compile(element, deeper) for element in elements]
                return lambda event: [value(event) for value in values]
            case ast.BoolOp(op=op, values=operands):
                return self._boolean(op, [self.compile(operand, deeper) for operand in operands])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                positive = self.compile(operand, deeper)
                return lambda event: not positive(event)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._calculation(node, operator.sub, lambda _: 0, self.compile(operand, deeper))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                operands_ = self.compile(left, deeper), self.compile(right, deeper)
                return self._calculation(node, _ARITHMETIC[type(op)], *operands_)
            case ast.Compare(left=first, ops=ops, comparators=others):
                terms = [self.compile(term, deeper) for term in (first, *others)]
                return self._comparisons(node, ops, terms)
        raise self._fault_at(node, f"{_KINDS.get(type(node), type(node).__name__)} cannot be used in a filter")

    def _field(self, node: ast.expr) -> _Value:
        path = self._path(node)
        if path[0] in MAPPINGS and len(path) > 1:
            return lambda event: mapping_value(event, path)
        if path[0] == "experience" and len(path) == 2:
            path = (RENAMED.get(path[1], path[1]),)
        if len(path) == 1 and path[0] in FILTERABLE:
            return FILTERABLE[path[0]]
        if path in {(name,) for name in MAPPINGS}:
            raise self._fault_at(node, f"name a part of it: {path[0]}.<name>")
        known = ", ".join((*sorted(FILTERABLE), *(f"{name}.<name>" for name in MAPPINGS)))
        raise self._fault_at(node, f"there is no field {'.'.join(path)}; there are {known}")

    def _path(self, node: ast.expr) -> tuple[str, ...]:
        match node:
            case ast.Name(id=name):
                return (name,)
            case ast.Attribute(value=owner, attr=name):
                return (*self._path(owner), name)
        raise self._fault_at(node, "only a field's name may stand before a dot")

    def _boolean(self, op: ast.boolop, values: list[_Value]) -> _Value:
        if isinstance(op, ast.And):
            return lambda event: all(value(event) for value in values)
        return lambda event: any(value(event) for value in values)

    def _comparisons(self, node: ast.Compare, ops: list[ast.cmpop], terms: list[_Value]) -> _Value:
        tests = [self._comparison(node, op) for op in ops]

        def compare(event: SelectedEvent) -> bool:
            left = terms[0](event)
            for test, term in zip(tests, terms[1:], strict=True):
                right = term(event)
                if not test(left, right):
                    return False
                left = right
            return True

        return compare

    def _comparison(self, node: ast.Compare, op: ast.cmpop) -> Callable[[Any, Any], bool]:
        match op:
            case ast.Eq() | ast.Is():
                return operator.eq
            case ast.NotEq() | ast.IsNot():
                return operator.ne
            case ast.In() | ast.NotIn():
                expected = isinstance(op, ast.In)

                def contains(item: Any, container: Any) -> bool:
                    if container is None or (item is None and isinstance(container, str)):
                        return not expected
                    return bool(self._apply(node, operator.contains, container, item)) is expected

                return contains
        order = _ORDER[type(op)]
        return lambda a, b: a is not None and b is not None and bool(self._apply(node, order, a, b))

    def _calculation(self, node: ast.expr, function: Callable[[Any, Any], Any], left: _Value, right: _Value) -> _Value:
        def calculate(event: SelectedEvent) -> Any:
            a, b = left(event), right(event)
            if a is None or b is None:
                return None
            if not (isinstance(a, (int, float)) and isinstance(b, (int, float))):
                raise self._fault_at(node, f"{a!r} and {b!r} are not both numbers")
            return self._apply(node, function, a, b)

        return calculate

    def _apply(self, node: ast.expr, function: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
        try:
            return function(a, b)
        except (TypeError, ArithmeticError) as error:
            raise self._fault_at(node, f"with {a!r} and {b!r}: {error}") from error

    def _fault_at(self, node: ast.expr, message: str) -> SelectionError:
        # The parser counts bytes.
        column = len(self._text.encode()[: node.col_offset].decode(errors="ignore"))
        return _fault(self._text, column, message)


_KINDS: dict[type[ast.expr], str] = {
    ast.Call: "a call",
    ast.Subscript: "a subscript",
    ast.Lambda: "a lambda",
    ast.IfExp: "if … else",
    ast.JoinedStr: "an f-string",
    ast.ListComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.NamedExpr: "an assignment",
}
