"""Small faults put into source text: one operator, number, condition or statement changed at a time."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
# Calls `x.name(...)` that give something of x's own kind, so that `x` alone can stand in their place. Not `to`: on one
# device, and where types are promoted, nothing would change.
DROPPED = {
    "abs", "clamp", "clamp_", "clone", "contiguous", "detach", "exp", "floor", "log", "round", "sort", "sqrt", "square",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change of a source text.

    Attributes:
        line: where it is, from 1.
        start, end: the bytes that it replaces.
        text: by what.
        was: what they were.
    """

    line: int
    start: int
    end: int
    text: str
    was: str

    def applied(self, source: str) -> str:
        """Return the source with the change."""
        data = source.encode()
        return (data[: self.start] + self.text.encode() + data[self.end :]).decode()


def mutants_of(source: str) -> list[Mutant]:
    """Return all mutants of a module, in the order of its text.

    Not changed are annotations, docstrings, texts, and what is raised: no test should depend on their words. Nor is
    `strict=True`, which says what cannot happen.
    """
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: list[Mutant] = []
    for node, text in _changes(ast.parse(source)):
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        found.append(Mutant(node.lineno, start, end, text, source.encode()[start:end].decode()))
    return sorted(found, key=lambda mutant: (mutant.start, mutant.end, mutant.text))


def _changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Yield nodes below this one with the texts that may replace them."""
    if isinstance(node, ast.expr):
        yield from ((node, f"({ast.unparse(other)})") for other in _other_expressions(node))
    if isinstance(node, ast.AugAssign) or _may_be_left_out(node):
        assert isinstance(node, ast.stmt)
        yield node, "pass"
    if isinstance(node, ast.If | ast.IfExp | ast.While) and isinstance(node.test, ast.Name | ast.Attribute | ast.Call):
        yield node.test, f"(not {ast.unparse(node.test)})"
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "format_spec"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_said(child):
                yield from _changes(child)


def _is_said(node: ast.AST) -> bool:
    """Tell what is there for readers and type checkers."""
    match node:
        case ast.Raise() | ast.JoinedStr() | ast.Assert() | ast.keyword("strict"):
            return True
        case ast.AnnAssign(annotation=ast.Name("TypeAlias")):
            return True
        case _:
            return False


def _may_be_left_out(node: ast.AST) -> bool:
    match node:
        case ast.Expr(ast.Call(ast.Attribute(ast.Call(ast.Name("super"))))):
            return False  # without it nothing works, as any test tells
        case ast.Expr(ast.Call()):
            return True
        case _:
            return False


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("F", "math", "nn", "np", "torch")


def _other_expressions(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Compare(left, [op], [right]):
            for other in COMPARED[type(op)]:
                yield ast.Compare(left, [other()], [right])
        case ast.BinOp(left, op, right) if type(op) in COMPUTED:
            yield ast.BinOp(left, COMPUTED[type(op)](), right)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.Call(ast.Attribute(value, name)) if name in DROPPED and not _is_module(value):
            yield value
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(float(value)):
            yield ast.Constant(2 * value if value else 1.0)
        case _:
            pass
