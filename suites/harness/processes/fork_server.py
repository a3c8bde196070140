"""The process that ranks are forked from: torch is imported once, here. Run with -m by ForkClient.

Importing torch and the encoders takes seconds, and every rank needs them. This process imports them, starts
no thread, touches no card, and then forks a rank for each request. It leads a session of its own, so that
Ctrl-C in the terminal reaches neither it nor the ranks, and each rank leads a process group, so that what a
rank itself started ends with it. multiprocessing's fork server was no fit: it waits without a deadline for a
fork, runs the parent's `__main__` again in each rank, and outlives a killed parent while any rank does.

Requests are packets: `fork` with two file descriptors (the rank's channel; where its exit status goes),
answered with the process id; `warm MODULE:FUNCTION`, which calls that function once, answered with `warm`; `SIGNAL
PID`, not answered. When the other end closes, everything forked here is
killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback

from suites.harness.processes.child_link import run_rank

PACKET = 4096
_PR_SET_PDEATHSIG = 1


class ForkServer:
    """Forks ranks, reports how they ended, and lets none outlive the parent."""

    def __init__(self, control: socket.socket) -> None:
        """`control`: a sequenced-packet socket to the parent."""
        self._control = control
        self._status_of: dict[int, int] = {}
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._waker, False)

    def serve(self) -> None:
        """Serve until the parent is gone, then end every rank."""
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            ready, _, _ = select.select([self._control.fileno(), self._woken], [], [])
            if self._woken in ready:
                os.read(self._woken, PACKET)
                self._reap()
            if self._control.fileno() in ready and not self._answer():
                break
        for pid in self._status_of:
            _kill_group(pid, signal.SIGKILL)

    def _answer(self) -> bool:
        """Answer one request; False when there are no more."""
        request, descriptors, _, _ = socket.recv_fds(self._control, PACKET, 2)
        if request == b"fork":
            self._control.send(str(self._fork(*descriptors)).encode())
        elif request.startswith(b"warm "):
            self._warm_up(request.removeprefix(b"warm ").decode())
        elif request:
            number, pid = (int(word) for word in request.split())
            if pid in self._status_of:  # not reaped, so the number is still that rank's
                _kill_group(pid, number)
        return bool(request)

    def _warm_up(self, name: str) -> None:
        """Call a function whose results ranks find in memory; one that fails keeps none of them from starting."""
        module, _, function = name.partition(":")
        try:
            getattr(importlib.import_module(module), function)()
        except Exception:  # a rank that meets the same says so itself
            traceback.print_exc()
        gc.collect()
        gc.freeze()
        self._control.send(b"warm")

    def _fork(self, channel: int, status: int) -> int:
        pid = os.fork()
        if pid == 0:
            self._become_rank(channel, status)
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the rank does it too; whoever is first
            os.setpgid(pid, pid)
        os.close(channel)
        self._status_of[pid] = status
        return pid

    def _become_rank(self, channel: int, status: int) -> None:
        """Leave everything of the server behind, in the fork, and never return."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setpgid(0, 0)
            _wake_when_orphaned()
            self._control.close()
            for descriptor in (self._woken, self._waker, status, *self._status_of.values()):
                os.close(descriptor)
            code = run_rank(channel)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _reap(self) -> None:
        """End what ended ranks left running, while the process group is still theirs; report them."""
        while self._status_of:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            _kill_group(ended.si_pid, signal.SIGKILL)
            _, wait_status = os.waitpid(ended.si_pid, 0)
            descriptor = self._status_of.pop(ended.si_pid)
            with contextlib.suppress(BrokenPipeError):
                os.write(descriptor, str(os.waitstatus_to_exitcode(wait_status)).encode())
            os.close(descriptor)


def _wake_when_orphaned() -> None:
    """Have the kernel continue this process when the server dies: a stopped one could not see that it should end."""
    with contextlib.suppress(OSError, AttributeError):  # Linux alone
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def _kill_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def main(descriptor: int, preload: list[str]) -> None:
    """Import `preload`, say so over the socket `descriptor`, and serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # of what is made while importing nothing is garbage, and looking for it takes a quarter of the time
    for name in preload:
        importlib.import_module(name)
    gc.collect()
    gc.enable()
    gc.freeze()  # a rank's collections leave the shared pages alone
    control = socket.socket(fileno=descriptor)
    control.send(b"ready")
    ForkServer(control).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
