# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Runs a function on hostile input in a forked child, under limits, and says what it did.

    outcome = attempt(read_refs, path, folder=tmp_path)
    outcome.check_refused()

The child is forked from this process, which has imported everything: no case pays for the imports. Its standard input
is an endless "y", so whatever asks before it runs something foreign is told to. An audit hook notes the processes that
it starts, the hosts that it calls, and the files that it opens or changes.
"""

import faulthandler
import os
import pickle
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path


LONGEST_LINE = 600  # characters of a message
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.startfile", "pty.spawn", "ctypes.dlopen")
CALLS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod")
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
MIB = 2**20


@dataclass
class Outcome:
    """What a function did.

    Args:
        status: 0 if it returned, the status if it left by sys.exit (or typer.Exit), None if it raised or was killed.
        error: name of the exception's type, "" if none.
        text: of the exception.
        trace: the traceback, for people.
        signal: number of the signal that ended it, 0 if none; SIGKILL if its time was over.
        is_late: whether its time was over.
        seconds: that it took.
        growth: MiB by which its memory grew at the peak.
        value: the first letters of what it returned.
        stdout, stderr: what it printed.
        started, called, opened, changed: programs, hosts and paths, see the audit events of Python.
        before, after: the files of `folder`, each with its size.
    """

    status: int | None = None
    error: str = ""
    text: str = ""
    trace: str = ""
    signal: int = 0
    is_late: bool = False
    seconds: float = 0.0
    growth: float = 0.0
    value: str = ""
    stdout: str = ""
    stderr: str = ""
    started: list[str] = field(default_factory=list)
    called: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)

    @property
    def left(self) -> list[str]:
        """The files in `folder` that are new, gone or of another size."""
        names = sorted({*self.before, *self.after})
        return [name for name in names if self.before.get(name) != self.after.get(name)]

    @property
    def is_refused(self) -> bool:
        """Whether it said no as bad input is to be told: ValueError, OSError, or a command's status 2."""
        return self.error in REFUSALS if self.status is None else self.status == 2

    @property
    def message(self) -> str:
        """The text of the refusal, as the exception has it or the command prints it last, after any progress."""
        return self.text if self.status is None else self.stderr.strip().rpartition("\n")[2]

    def check_harmless(self, megabytes: float = 500):
        """Assert that it ended by itself, in its memory, started nothing, called nobody and left nothing behind."""
        assert not self.is_late, f"still running after {self.seconds:.1f} s"
        assert not self.signal, f"killed by signal {self.signal}: {self.stderr[-500:]}"
        assert self.growth < megabytes, f"grew by {self.growth:.0f} MiB"
        assert not self.started, self.started
        assert not self.called, self.called
        assert not self.left or self.status == 0, self.left

    def check_refused(self, *words: str, megabytes: float = 500):
        """Assert that it is harmless and refused the input in one short line that has all of these words."""
        self.check_harmless(megabytes)
        assert self.is_refused, (
            f"status {self.status}, {self.error}: {self.text[:300]} {self.value}\n{self.trace[-3000:]}"
        )
        message = self.message
        assert message and "\n" not in message and "\r" not in message, repr(message[:1000])
        assert len(message) < LONGEST_LINE, f"{len(message)} characters: {message[:1000]}"
        assert "Traceback" not in self.stderr
        assert all(is_harmless_letter(letter) for letter in message), ascii(message)
        for word in words:
            assert word in message, f"{word!r} is not in {message!r}"


REFUSALS = ("ValueError", "OSError", "FileNotFoundError", "FileExistsError", "PermissionError", "IsADirectoryError")


def is_harmless_letter(letter: str) -> bool:
    """Whether a terminal shows it: no control code, no mark of direction, no half of a surrogate."""
    is_control = ord(letter) < 32 or 127 <= ord(letter) < 160
    is_direction = letter in "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return not (is_control or is_direction or 0xD800 <= ord(letter) < 0xE000)


def attempt(function, *args, seconds: float = 15, gigabytes: float = 4, folder=None, **kwargs) -> Outcome:
    """Call a function in a forked child.

    Args:
        function, args, kwargs: what to call.
        seconds: after these it is killed, with all that it started.
        gigabytes: that it may map beyond what this process has.
        folder: whose files are listed before and after.
    """
    outcome = Outcome(before=list_files(folder))
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        source, sink = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            os.close(source)
            _become_child(function, args, kwargs, sink, out.fileno(), err.fileno(), gigabytes)
        os.close(sink)
        content = b""
        while True:
            left = start + seconds - time.monotonic()
            if left <= 0 or not select.select([source], [], [], left)[0]:
                outcome.is_late = True
                break
            part = os.read(source, 2**20)
            if not part:
                break
            content += part
        os.close(source)
        try:
            os.killpg(child, signal.SIGKILL)  # and what it started; it is a zombie if it ended by itself
        except ProcessLookupError:
            pass
        _, how = os.waitpid(child, 0)
        if content and not outcome.is_late:
            for name, value in pickle.loads(content).items():
                setattr(outcome, name, value)
        elif os.WIFSIGNALED(how):
            outcome.signal = os.WTERMSIG(how)
        out.seek(0)
        err.seek(0)
        outcome.stdout = out.read(MIB).decode("utf-8", "backslashreplace")
        outcome.stderr = err.read(MIB).decode("utf-8", "backslashreplace")
    outcome.seconds = time.monotonic() - start
    outcome.after = list_files(folder)
    return outcome


def run_command(*arguments: str):
    """Run the command `remamber` with these arguments in this process; for `attempt`."""
    from remamber_hf.cli.main import main

    sys.argv = ["remamber", *map(str, arguments)]
    main()


def list_files(folder) -> dict[str, int]:
    """The paths in a folder, each with its size; -1 for what is no regular file."""
    if folder is None:
        return {}
    paths = [Path(parent) / name for parent, folders, names in os.walk(folder) for name in [*folders, *names]]
    return {
        str(path.relative_to(folder)): path.lstat().st_size if path.is_file() and not path.is_symlink() else -1
        for path in paths
    }


def _become_child(function, args, kwargs, sink: int, out: int, err: int, gigabytes: float):
    """Call the function, write what it did to the pipe `sink`, and end the process."""
    report = {}
    try:
        os.setsid()
        asking, answers = os.pipe()
        os.write(answers, b"y\n" * 1000)
        os.close(answers)
        for ours, theirs in ((asking, 0), (out, 1), (err, 2)):
            os.dup2(ours, theirs)
        sys.stdin, sys.stdout, sys.stderr = (open(at, mode) for at, mode in ((0, "r"), (1, "w"), (2, "w")))
        faulthandler.enable()  # where a crash was, into stderr
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + int(gigabytes * 2**30), hard))
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)  # the threads of the parent are not there after a fork
        before = _memory("VmRSS")
        seen = {name: [] for name in ("started", "called", "opened", "changed")}
        sys.addaudithook(lambda event, values: _note(seen, event, values))
        report = _call(function, args, kwargs)
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        report |= {name: list(values) for name, values in seen.items()}
        report["growth"] = max(0, peak * 1024 - before) / MIB
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        report = {"error": "the machinery", "trace": traceback.format_exc()}
    finally:
        content = pickle.dumps(report)
        while content:
            content = content[os.write(sink, content) :]
        os._exit(0)


def _call(function, args, kwargs) -> dict:
    try:
        value = function(*args, **kwargs)
        return {"status": 0, "value": str(value)[:300]}
    except SystemExit as error:
        return {"status": error.code if isinstance(error.code, int) else int(error.code is not None)}
    except BaseException as error:
        trace = traceback.format_exc(limit=-12)
        exit_code = getattr(error, "exit_code", None)  # of typer.Exit
        if isinstance(exit_code, int):
            return {"status": exit_code}
        text = "".join(piece for piece in str(error)[: 2 * MIB])
        return {"error": type(error).__name__, "text": text, "trace": trace[-20000:]}


def _note(seen: dict[str, list], event: str, values: tuple):
    """Note what an audit event says; it must not open or import anything itself."""
    if event == "open":
        path, mode, flags = values
        if isinstance(path, (str, bytes)):
            path = os.fsdecode(path)
            is_changed = bool((flags or 0) & WRITE_FLAGS)
            seen["changed" if is_changed else "opened"].append(path)
    elif event in CHANGES:
        seen["changed"].append(str(values[0]))
    elif event in STARTS and values[:1] != (None,):  # ctypes.CDLL(None) is this process itself
        seen["started"].append(f"{event} {str(values)[:200]}")
    elif event in CALLS:
        seen["called"].append(f"{event} {str(values)[:200]}")


def _memory(name: str) -> int:
    """VmSize or VmRSS of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")
