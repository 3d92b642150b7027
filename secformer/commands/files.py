"""Files and folders that options name: read, or checked before a command works long for nothing.

Every error says which option, which path, and what to do.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from secformer.models.data.unicode import undecodable
from secformer.mpc.errors import InputError

UTF_8_TEXTS = "give a UTF-8 file with one text per line"


def text_of(path: str, option: str, wanted: str) -> str:
    """The content of a UTF-8 file, which may also be a pipe. `wanted` says what to give."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise _refused(error, path, option, wanted) from error
    except UnicodeDecodeError as error:
        raise undecodable(error, f"{option} {path}") from error


def lines(path: str, option: str, wanted: str = UTF_8_TEXTS) -> list[str]:
    """The lines of a UTF-8 file, without the empty ones. Raises InputError if there are none."""
    found = [line.rstrip("\r") for line in text_of(path, option, wanted).split("\n") if line.strip()]
    if not found:
        raise InputError(f"{option} {path} holds no text; {wanted}")
    return found


def readable(path: str | None, option: str, wanted: str) -> None:
    """Raises InputError unless the option is left out, or names something that can be opened to read."""
    if path is not None:
        _check(path, option, wanted, folder=False, right=os.R_OK)


def folder(path: str | None, option: str, wanted: str) -> None:
    """Raises InputError unless the option is left out, or names a folder whose files can be read."""
    if path is not None:
        _check(path, option, wanted, folder=True, right=os.R_OK | os.X_OK)


def writable(path: str | None, option: str) -> None:
    """Raises InputError unless the option is left out, or names a file that can be written, in a folder that exists."""
    if path is None:
        return
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{option} {path} is a folder; give the name of a file to write")
    if target.exists():
        _check(path, option, "give another file, or change its permissions", folder=False, right=os.W_OK)
    else:
        _check(str(target.absolute().parent), f"{option} {path}: the folder", "create it first, or give another file",
               folder=True, right=os.W_OK | os.X_OK)


def new_folder(path: str | None, option: str) -> None:
    """Raises InputError unless the option is left out, or names a folder that is there or can be made."""
    if path is None:
        return
    target = Path(path).absolute()
    while not os.path.lexists(target) and target != target.parent:
        target = target.parent
    name = option if target == Path(path).absolute() else f"{option} {path}: its parent"
    _check(str(target), name, "give another folder", folder=True, right=os.W_OK | os.X_OK)


def _check(path: str, option: str, wanted: str, *, folder: bool, right: int) -> None:
    try:
        found = os.stat(path)
    except OSError as error:
        raise _refused(error, path, option, wanted) from error
    if stat.S_ISDIR(found.st_mode) != folder:
        raise _refused(OSError(errno.ENOTDIR if folder else errno.EISDIR, ""), path, option, wanted)
    if not os.access(path, right):
        raise _refused(OSError(errno.EACCES, ""), path, option, wanted)


_REASONS = {
    errno.ENOENT: "does not exist", errno.EISDIR: "is a folder, not a file", errno.ENOTDIR: "is not a folder",
    errno.EACCES: "may not be used by this user", errno.ELOOP: "is a link that leads back to itself",
    errno.ENAMETOOLONG: "is longer than a path may be",
}


def _refused(error: OSError, path: str, option: str, wanted: str) -> InputError:
    reason = _REASONS.get(error.errno or 0) or f"cannot be used ({error.strerror or error})"
    return InputError(f"{option} {path} {reason}; {wanted}")
