"""Files and folders that are there whole or not at all.

Everything the library writes goes through here: into a temporary sibling, flushed to the disk, then renamed. A run that is
killed leaves the old version or none, never half of a new one. What it may leave is a hidden sibling `.NAME.*.partial` or
`.NAME.*.old`, which nothing reads and `remove_leftovers` deletes.
"""

import ctypes
import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssl4neuro.errors import UserError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EROFS, errno.EPERM}
NOT_A_FOLDER = {errno.ENOTDIR, errno.EEXIST}
UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES}  # what network and FUSE disks say to fsync of a folder
EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)


@contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends without an exception.

    Args:
        path: the folder to create; parents are made.
        replace: put the new folder in the place of an existing one instead of refusing.

    Raises:
        UserError: `path` exists and `replace` is false, or the disk is full or not writable.
    """
    path = Path(path)
    refusal = f"{path}: exists already; name another output folder or delete it"
    if os.path.lexists(path) and not replace:
        raise UserError(refusal)
    target = _followed(path)
    with _disk_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        with _disk_errors(path):
            yield temporary
            temporary.chmod(0o777 & ~_umask())  # mkdtemp makes it private; a group's cohort is shared
            flush_tree(temporary)
            if os.path.lexists(target) and not replace:  # came into being meanwhile; os.replace would take an empty one's place
                raise UserError(refusal)
            _put(temporary, target)
            flush_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder that replaces `path` when the block ends without an exception."""
    path = Path(path)
    target = _followed(path)
    with _disk_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with _disk_errors(path):
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            _flush(temporary)
            os.replace(temporary, target)
            flush_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove(path: Path) -> None:
    """Delete a folder so that a kill in between leaves it whole or gone: renamed first, emptied then."""
    with _disk_errors(path):
        doomed = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
        os.replace(path, doomed)  # an empty folder's place may be taken
        shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers left in `folder`. Only where a single process writes: another's work would go too."""
    for suffix in ("partial", "old"):
        for leftover in folder.glob(f".*.{suffix}"):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                with suppress(OSError):
                    leftover.unlink()


def flush_tree(folder: Path) -> None:
    """fsync every file and folder below `folder`."""
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            file = Path(root) / name
            if not file.is_symlink():
                _flush(file)
        flush_folder(Path(root))


def flush_folder(folder: Path) -> None:
    """fsync a folder, so that a rename in it outlives a power cut; where the disk cannot, it stays with the rename."""
    try:
        _flush(folder)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put(temporary: Path, target: Path) -> None:
    """Rename the finished folder; an old one in its place is exchanged in one step, so that no kill finds neither."""
    if not os.path.lexists(target):
        os.replace(temporary, target)
    elif not _exchange(temporary, target):  # afterwards `temporary` is the old folder, and the caller deletes it
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
        os.replace(target, old / target.name)
        os.replace(temporary, target)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two names atomically; false where the system or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here = -100  # AT_FDCWD
    names = os.fsencode(os.path.abspath(a)), os.fsencode(os.path.abspath(b))
    return swap(here, ctypes.c_char_p(names[0]), here, ctypes.c_char_p(names[1]), ctypes.c_uint(EXCHANGE)) == 0


def _followed(path: Path) -> Path:
    """Where a link points to: a user who linked the output to a bigger disk wants it there."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _read_umask()  # once, at import: reading means setting it, which other threads would see


def _umask() -> int:
    return _UMASK


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        message = _explain(path, error)
        if message is None:
            raise
        raise UserError(message) from error


def _explain(path: Path, error: Exception) -> str | None:
    """What the user can do about it; None when the error is not about writing `path`."""
    number = _number(error)
    if number in FULL:
        return f"{path}: no space left to write it ({os.strerror(number)}); nothing was changed, free some space"
    if not isinstance(error, OSError) or error.filename is None:
        return None
    concerned, target = Path(os.path.abspath(os.fsdecode(error.filename))), Path(os.path.abspath(_followed(path)))
    inside = [part for part in (concerned, *concerned.parents) if part.parent == target.parent]
    ours = any(part.name.startswith(f".{target.name}.") for part in inside)
    if not ours and concerned not in (target, *target.parents):
        return None  # an input that the block read
    if number in FORBIDDEN:
        return f"{path}: cannot be written ({error.strerror}); choose a folder that you may write to"
    if number in NOT_A_FOLDER and concerned in target.parents:
        return f"{path}: cannot be written, {concerned} is a file and not a folder; choose another place"
    if number in {errno.ENAMETOOLONG, errno.ELOOP}:
        return f"{path}: cannot be written ({error.strerror}); choose another name"
    return None


def _number(error: Exception) -> int | None:
    """errno, also of libraries that only put it into the text (safetensors: `I/O error: File too large (os error 27)`)."""
    if isinstance(error, OSError):
        return error.errno
    if type(error).__module__.partition(".")[0] not in {"safetensors", "pyarrow"}:
        return None
    found = re.search(r"(?:os error|errno) (\d+)", str(error))
    return int(found[1]) if found else None
