"""Finds the file that changed after the scan, from the error of the pipeline."""

import re

MESSAGE = "This image file has changed since it was scanned; load the data again:"
"""What the pipeline says of a file with other bytes than were scanned; its path follows."""

_OTHER_BYTES = re.compile(re.escape(MESSAGE) + r"\] \[(.+?)\]")
_UNREADABLE = re.compile(r"^.*: (.+?); ([^;\n]+)\s+\[\[\{\{node \S*ReadFile\}\}\]\]", re.MULTILINE)


def message_if_file_changed(error: BaseException) -> str | None:
    """Say in a sentence which file an error is about; None when it is about something else."""
    if not type(error).__module__.startswith("tensorflow."):
        return None
    text = str(error)
    if found := _OTHER_BYTES.search(text):
        what = f"{found[1]} (other bytes)"
    elif found := _UNREADABLE.search(text):
        what = f"{found[1]} ({found[2]})"
    else:
        return None
    return (
        f"An image file was changed or removed after the scan: {what}. Restore it, or start "
        "again, which scans the images again."
    )
