"""Has the reference of the site show `Example:` as code: griffe knows it as `Examples:` alone."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Renames the heading before a docstring is parsed."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Look at one object."""
        if obj.docstring is not None:
            pattern = r"^( *)Example:$"
            obj.docstring.value = re.sub(
                pattern, r"\1Examples:", obj.docstring.value, flags=re.MULTILINE
            )
