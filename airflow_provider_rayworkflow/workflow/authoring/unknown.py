"""What can't be done with a value before the task that gives it has run, told with the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn


class Unknown:
    """Something of which Python asks for the value too early: operators, calls and conversions raise.

    ``==`` does not: it compares which one it is. Type checkers see none of these methods, and so report their uses.
    """

    __slots__ = ()
    __unknown_value__ = True


def _refusing(method: str) -> Callable[..., NoReturn]:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            f"The value of {self!r} is not known before the task has run, so it can't be {_USES[method]}. Do "
            "that in a task that takes it as an argument."
        )

    refuse.__name__ = f"__{method}__"
    return refuse


_COMPUTED = "computed with"
_OPERATORS = (
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow"),
    *("lshift", "rshift", "and", "or", "xor"),
)
_USES = {
    **{f"{side}{operator}": _COMPUTED for operator in _OPERATORS for side in ("", "r", "i")},
    **dict.fromkeys(("neg", "pos", "abs", "invert", "round", "trunc", "floor", "ceil"), _COMPUTED),
    **dict.fromkeys(("lt", "le", "gt", "ge"), "compared"),
    **dict.fromkeys(("int", "float", "complex", "index"), "used as a number"),
    **dict.fromkeys(("setitem", "delitem"), "changed"),
    **dict.fromkeys(("len", "contains", "reversed"), "gone through"),
    **{"call": "called", "bytes": "made bytes", "fspath": "used as a path"},
}
del _USES["idivmod"]

for _method in _USES:
    setattr(Unknown, f"__{_method}__", _refusing(_method))
