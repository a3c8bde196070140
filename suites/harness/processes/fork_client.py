"""The parent's end of a rank server: start it, ask it for processes, signal and end them. Free of torch."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection, Pipe
from typing import IO

from liveavatar_core.errors import LiveAvatarError

LOG_TAIL = 8192
"""Bytes of a log that are read back."""
CLOSE_SECONDS = 30
"""Seconds for a server to end what it forked."""


class ForkError(LiveAvatarError):
    """The server did not start, did not answer in time or died."""


class RankProcess:
    """One forked process. Wait for `connection` and `status` with multiprocessing.connection.wait."""

    def __init__(self, server: ForkClient, pid: int, connection: Connection, status: int) -> None:
        """`status`: a file descriptor that delivers the exit status, or ends without if the server died."""
        self._server, self.pid, self.connection, self.status = server, pid, connection, status
        self.ended = False
        self.exit_status: int | None = None
        """The exit status, negative for a signal. None while it runs, and if nobody can know."""

    def read_status(self) -> None:
        """Take the exit status, which must be ready."""
        text = os.read(self.status, 16)
        os.close(self.status)
        self.ended, self.exit_status = True, int(text) if text else None

    def await_hangup(self, deadline: float) -> None:
        """Wait until the process lets go of its channel: the only sign of its end once the server is gone."""
        with contextlib.suppress(EOFError, OSError):
            while self.connection.poll(max(0.0, deadline - time.monotonic())):
                self.connection.recv()

    def signal(self, number: int) -> None:
        """Send a signal to the process and to what it started; nothing if it is known to have ended."""
        if self.exit_status is None:
            self._server.signal(self.pid, number)


class ForkClient:
    """A rank server, started when it is first asked for a process, and again if it died. Not thread-safe."""

    def __init__(self, preload: tuple[str, ...]) -> None:
        """`preload`: modules that ranks find imported. None may start a thread or use a card."""
        self._preload = preload
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._imported = False
        self._warmed: set[str] = set()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        atexit.register(self.close)

    @property
    def pid(self) -> int | None:
        """Process id, which is also the session id of every rank; None before the first process."""
        return self._process.pid if self._process else None

    def fork(self, deadline: float, warm_up: str = "") -> RankProcess:
        """A new process. ForkError if there is none by `deadline` (time.monotonic).

        warm_up: `package.module:function` that is called once in the server before the first process that asks for it.
        """
        try:
            control = self._ready(deadline)
            if warm_up and warm_up not in self._warmed:
                control.send(f"warm {warm_up}".encode())
                self._receive(control, deadline)
                self._warmed.add(warm_up)
            return self._fork(control, deadline)
        except OSError as error:
            raise self._lost(f"took no request ({error})") from error
        except BaseException:
            self.close()  # an answer that nobody took would be taken for the next one
            raise

    def _fork(self, control: socket.socket, deadline: float) -> RankProcess:
        connection, channel = Pipe()
        status, status_written = os.pipe()
        try:
            socket.send_fds(control, [b"fork"], [channel.fileno(), status_written])
            pid = int(self._receive(control, deadline))
        finally:
            channel.close()
            os.close(status_written)
        return RankProcess(self, pid, connection, status)

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to the process group of a process that was forked here."""
        try:
            if self._control:
                self._control.send(b"%d %d" % (number, pid))
                return
        except OSError:
            self.close()
        # Only init reaps the ranks of a dead server: their numbers are not given away within these moments.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)

    def close(self) -> None:
        """End the server and everything that it forked."""
        if self._process and self._control:
            self._control.close()
            self._control = None
            try:
                self._process.wait(timeout=CLOSE_SECONDS if self._imported else 0)  # until then it has forked nothing
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _ready(self, deadline: float) -> socket.socket:
        if self._control is None or (self._process and self._process.poll() is not None):
            self.close()
            self._start()
            assert self._control
            self._receive(self._control, deadline)
            self._imported = True
        return self._control

    def _start(self) -> None:
        self._imported = False
        self._warmed.clear()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "suites.harness.processes.fork_server", str(theirs.fileno()), *self._preload],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=os.environ | _server_environment(),
                start_new_session=True,
            )

    def _receive(self, control: socket.socket, deadline: float) -> bytes:
        control.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            answer = control.recv(64)
        except TimeoutError as error:
            raise self._lost("did not answer in time") from error
        except OSError as error:
            raise self._lost(f"is gone ({error})") from error
        if not answer:
            raise self._lost("ended")
        return answer

    def _lost(self, what: str) -> ForkError:
        if self._process:
            self._process.send_signal(signal.SIGKILL)
        self.close()
        end = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, end - LOG_TAIL))
        said = self._log.read().decode(errors="replace").strip()
        return ForkError(
            f"the process that ranks are forked from {what}: {said or 'it said nothing'}",
            f"{sys.executable} -c 'import {', '.join(self._preload) or 'suites'}'",
        )


def _server_environment() -> dict[str, str]:
    """The environment that the server needs for itself; ranks are given one of their own."""
    return {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        # Threads that wait spin otherwise, on cores that others need: a clip beside other work takes ten times as long.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "OMP_NUM_THREADS": "1",  # libraries that start threads when loaded would not survive a fork
        "CUDA_VISIBLE_DEVICES": "",  # a card that was touched before the fork is lost to every rank
    }


@functools.cache
def shared_fork_client(preload: tuple[str, ...]) -> ForkClient:
    """The one server with these modules, for every group of this process."""
    return ForkClient(preload)
