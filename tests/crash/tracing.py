"""Run a function in a child that dies, or meets a full disk, at a chosen system call that writes.

The child is a fork of this process and is traced by ptrace: what Python, Rust and C++ write is seen alike, and no
compiler is needed. Only calls on paths inside the given folder count. Linux on x86-64 alone.
"""

import ctypes
import enum
import errno
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Fault", "Outcome", "can_trace", "run_traced"]

_TRACEME, _PEEKUSER, _CONT, _POKEUSER, _SYSCALL, _SETOPTIONS = 0, 3, 7, 6, 24, 0x4200
_GETREGS, _SETREGS = 12, 13
# Whole children: a thread is traced from its start, and all die with the tracer.
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x100000
_WALL = 0x40000000
_REGISTERS = 27
_RAX, _RDX, _RSI, _RDI, _ORIG_RAX, _R10 = 10, 12, 13, 14, 15, 7

# Number of the call -> its name and the places of its arguments that are a descriptor or a path.
_FD, _PATH, _PATH2, _AT, _AT2 = "fd", "path", "second path", "at", "second at"
_CALLS = {
    1: ("write", _FD), 18: ("pwrite64", _FD), 20: ("writev", _FD), 296: ("pwritev", _FD), 40: ("sendfile", _FD),
    326: ("copy_file_range", _AT2), 77: ("ftruncate", _FD), 285: ("fallocate", _FD), 74: ("fsync", _FD),
    75: ("fdatasync", _FD), 2: ("open", _PATH), 85: ("creat", _PATH), 257: ("openat", _AT), 76: ("truncate", _PATH),
    83: ("mkdir", _PATH), 258: ("mkdirat", _AT), 84: ("rmdir", _PATH), 87: ("unlink", _PATH), 263: ("unlinkat", _AT),
    82: ("rename", _PATH), 264: ("renameat", _AT), 316: ("renameat2", _AT), 86: ("link", _PATH2),
    88: ("symlink", _PATH2), 266: ("symlinkat", _AT2), 91: ("fchmod", _FD), 90: ("chmod", _PATH),
}  # fmt: skip
_OF_BYTES = {"write", "pwrite64"}  # whose length is cut for half a buffer
_TAKES_SPACE = {"write", "pwrite64", "writev", "pwritev", "sendfile", "copy_file_range", "fallocate", "mkdir"}
_TAKES_SPACE |= {"open", "openat", "creat", "mkdirat"}
_READ_ONLY = _TAKES_SPACE | {"rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "truncate", "ftruncate"}


class Fault(enum.Enum):
    """Kind of fault at the chosen call."""

    NONE = "count"
    KILL = "killed before the call"
    HALF = "killed within the call, half of the bytes written"
    FULL = "full disk from the call on"
    READ_ONLY = "read-only disk"


@dataclass
class Outcome:
    """End of the child.

    Args:
        calls: Names of the calls that write inside the folder, in order, up to the end.
        is_killed: Whether the fault killed it.
        error: Type and message of the exception that ended the function; None without one.
    """

    calls: list[str] = field(default_factory=list)
    is_killed: bool = False
    error: str | None = None


def can_trace() -> bool:
    """Return whether this system can trace."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and hasattr(os, "fork")


def run_traced(function: Callable[[], object], folder: Path, fault: Fault = Fault.NONE, at: int = 0) -> Outcome:
    """Run a function in a traced child.

    Args:
        function: Work of the child.
        folder: Folder whose writing calls count, without links in its path.
        fault: Kind of fault.
        at: Number of the call that the fault strikes, from 0; a full disk stays full.
    """
    reader, writer = os.pipe()
    sys.stdout.flush(), sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_child(function, writer)
    os.close(writer)
    outcome = Outcome()
    _Tracer(child, os.fsencode(folder), fault, at, outcome).run()
    with os.fdopen(reader, "rb") as stream:
        outcome.error = stream.read().decode() or None
    return outcome


def _be_child(function: Callable[[], object], writer: int) -> None:
    """Run the function and tell how it ended; never returns into pytest."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1), os.dup2(nowhere, 2)
        _ptrace(_TRACEME, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        function()
    except BaseException as error:
        if os.environ.get("CRASH_DEBUG"):
            os.write(writer, traceback.format_exc().encode())
        os.write(writer, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(0)


def _ptrace(request: int, pid: int, address: int, data) -> int:
    call = ctypes.CDLL(None, use_errno=True).ptrace
    call.restype, call.argtypes = ctypes.c_long, [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    result = call(request, pid, address, data)
    if result == -1 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), f"ptrace({request}): {os.strerror(ctypes.get_errno())}")
    return result


class _Tracer:
    def __init__(self, child: int, folder: bytes, fault: Fault, at: int, outcome: Outcome):
        self.child, self.folder, self.fault, self.at, self.outcome = child, folder, fault, at, outcome
        self.inside: dict[int, int | str | None] = {}  # thread -> what happens when its call ends

    def run(self) -> None:
        os.waitpid(self.child, _WALL)
        _ptrace(_SETOPTIONS, self.child, 0, _OPTIONS)
        _ptrace(_SYSCALL, self.child, 0, 0)
        seen = {self.child}
        while seen:
            pid, status = os.waitpid(-1, _WALL)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                seen.discard(pid)
                if pid == self.child:
                    return
                continue
            seen.add(pid)
            stop, deliver = os.WSTOPSIG(status), 0
            if stop == signal.SIGTRAP | 0x80:
                if not self._at_call(pid):
                    return
            elif stop not in (signal.SIGTRAP, signal.SIGSTOP):
                deliver = stop
            try:
                _ptrace(_SYSCALL, pid, 0, deliver)
            except ProcessLookupError:
                seen.discard(pid)

    def _at_call(self, pid: int) -> bool:
        """Look at the beginning or the end of a call; False when the child was killed."""
        registers = (ctypes.c_ulonglong * _REGISTERS)()
        if pid in self.inside:
            ending = self.inside.pop(pid)
            if ending == "kill":
                return self._kill()
            if ending is not None:
                _ptrace(_GETREGS, pid, 0, registers)
                registers[_RAX] = ctypes.c_ulonglong(-ending).value
                _ptrace(_SETREGS, pid, 0, registers)
            return True
        self.inside[pid] = None
        _ptrace(_GETREGS, pid, 0, registers)
        name = self._writes(pid, registers)
        if name is None:
            return True
        number = len(self.outcome.calls)
        self.outcome.calls.append(name)
        if self.fault is Fault.KILL and number == self.at:
            return self._kill()
        if self.fault is Fault.HALF and number == self.at:
            if name not in _OF_BYTES:
                return self._kill()
            registers[_RDX] //= 2
            self.inside[pid] = "kill"
            _ptrace(_SETREGS, pid, 0, registers)
        failing = {Fault.FULL: (_TAKES_SPACE, errno.ENOSPC), Fault.READ_ONLY: (_READ_ONLY, errno.EROFS)}
        names, code = failing.get(self.fault, ((), 0))
        if name in names and number >= self.at:
            registers[_ORIG_RAX] = ctypes.c_ulonglong(-1).value
            self.inside[pid] = code
            _ptrace(_SETREGS, pid, 0, registers)
        return True

    def _kill(self) -> bool:
        os.kill(self.child, signal.SIGKILL)
        self.outcome.is_killed = True
        while True:
            try:
                pid, status = os.waitpid(-1, _WALL)
            except ChildProcessError:
                return False
            if pid == self.child and (os.WIFSIGNALED(status) or os.WIFEXITED(status)):
                return False

    def _writes(self, pid: int, registers) -> str | None:
        """Return the name of a call that writes inside the folder; None for others."""
        name, kind = _CALLS.get(registers[_ORIG_RAX], (None, None))
        if name is None:
            return None
        arguments = [registers[place] for place in (_RDI, _RSI, _RDX, _R10)]
        if name in ("open", "openat"):
            flags = arguments[1 if name == "open" else 2]
            if not flags & (os.O_CREAT | os.O_TRUNC):
                return None
        try:
            path = self._path(pid, kind, arguments)
        except OSError:
            return None
        return name if path == self.folder or path.startswith(self.folder + b"/") else None

    def _path(self, pid: int, kind: str, arguments: list[int]) -> bytes:
        if kind == _FD:
            return os.readlink(f"/proc/{pid}/fd/{arguments[0]}".encode())
        if kind == _AT2 and len(arguments) > 2:  # a descriptor of a file, or of the folder of a path
            return os.readlink(f"/proc/{pid}/fd/{arguments[2]}".encode())
        place = {_PATH: 0, _PATH2: 1, _AT: 1}[kind]
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(arguments[place])
            path = memory.read(4096).split(b"\0")[0]
        if path.startswith(b"/"):
            return path
        folder = ctypes.c_int(arguments[0] & 0xFFFFFFFF).value if kind == _AT else -100
        link = f"/proc/{pid}/cwd" if folder == -100 else f"/proc/{pid}/fd/{folder}"
        return os.path.join(os.readlink(link.encode()), path)
