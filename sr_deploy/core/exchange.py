"""Two names swapped in one step, where the system can: nothing is ever missing between two renames."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

#: renameat2(2): paths are relative to the working directory; the names are exchanged.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def exchange(first: Path, second: Path) -> bool:
    """Swap what two existing names stand for, atomically.

    Returns:
        False where the system (not Linux, a C library before 2.28) or the file system cannot; nothing has changed then.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    names = os.fsencode(str(first)), os.fsencode(str(second))
    rename.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return bool(rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)
