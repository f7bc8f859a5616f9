"""Functions written at class creation, where a general one would cost more than the work it does.

Owns how they are compiled and shown in tracebacks; knows nothing of what they do. The text holds
names only, never values, and every name in it was checked to be a Python identifier.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Mapping


def compile_function(
    name: str, text: str, names: Mapping[str, object], where: str
) -> Callable[..., object]:
    """Compile the text of one function.

    Args:
        name: the function's name in the text.
        text: a complete `def` or `async def`.
        names: what the text refers to.
        where: shown in tracebacks in place of a file name.
    """
    filename = f"<durum {where}.{name}>"
    scope = dict(names)
    exec(compile(text, filename, "exec"), scope)  # noqa: S102 - our own text, see above
    # A traceback through it then shows the line, as through any other code.
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    function = scope[name]
    if not callable(function):
        raise TypeError(f"{text!r} defines no function {name}")
    return function
