"""How objects are shown: `repr` in one line, and the full text in a notebook."""

import abc
import html


class Shown(abc.ABC):
    """`repr` is the class with `_in_short()`; a notebook shows `str`."""

    @abc.abstractmethod
    def _in_short(self) -> str:
        """Return a short description of this object."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._in_short()})"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"
