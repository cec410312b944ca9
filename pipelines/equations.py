"""The value of an equation such as `( 10.0 * 45.0 )`, of which nothing is run."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable

OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
"""What may stand between two numbers: no powers, which can be of any size."""

LONGEST = 1_000
"""Characters of an equation at most."""


def value_of(equation: str) -> float:
    """The value of an equation of numbers, + - * / and brackets.

    Raises:
        ValueError: It is none, or divides by zero.
    """
    if len(equation) > LONGEST:
        raise ValueError("this equation is too long")
    try:
        return _value(ast.parse(equation.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError, ZeroDivisionError, OverflowError):
        raise ValueError(f"'{equation[:60]}' is no equation") from None


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError("an equation has numbers, + - * / and brackets alone")
