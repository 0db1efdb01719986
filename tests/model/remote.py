"""The peer while the Stream's calls run: a thread that sends what is queued, and reads as much as it is told to.

Records are sealed and opened in the test's thread, by handpeer.HandPeer. This thread only moves bytes, so it is quick
enough for an emulated machine, and what a test queues is in order whatever the threads do.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from pathlib import Path

READING = ("all", "slow", "none")
SLOW_BYTES, SLOW_S = 2048, 0.05  # a slow reader takes this much, this often
_TICK_S = 0.02
_EXACT_S = 0.005  # a wait is no more exact than this


class Remote:
    """`peer` is a HandPeer. `arrived` is what came and was not taken yet; `ended`: "fin" or "reset" by the Stream."""

    def __init__(self, peer):
        self.peer = peer
        self.reading = "all"
        self.arrived = bytearray()
        self.ended = ""
        self._reset = False  # by the Stream: seen when this end sent
        self._late_s = 0.0
        self._alarms = []
        self._queue = deque()
        self._changed = threading.Condition()
        self._stopped, self._wake = False, os.eventfd(0, os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="remote")
        self._thread.start()

    # What the test says

    def queue(self, *items):
        """Do these in order, after what is queued: send bytes, wait seconds (a float), or call a function."""
        with self._changed:
            self._queue.extend(items)
        self._tell()

    def read(self, how):
        """Read all, slow or none from now on."""
        self.reading = how
        self._tell()

    @property
    def idle(self):
        """Whether all that was queued is done."""
        return not self._queue

    @property
    def steady(self):
        """Whether nothing waits on purpose."""
        with self._changed:
            return not any(isinstance(item, float) for item in self._queue)

    def wait(self, condition, seconds):
        """Wait until the condition holds; return whether it does."""
        with self._changed:
            return self._changed.wait_for(condition, seconds)

    def alarm(self, seconds, action):
        """Call `action` in this thread after some time; return what `calm` takes."""
        alarm = (time.monotonic() + seconds, action)
        self._alarms.append(alarm)
        self._tell()
        return alarm

    def calm(self, alarm):
        """Do not call it any more."""
        with contextlib.suppress(ValueError):
            self._alarms.remove(alarm)

    def waited_s(self):
        """Return how long this thread and the caller's have waited for a CPU so far.

        A guest does not know that its host had no time for it, but waits that are too long show that.
        """
        threads = (threading.get_native_id(), self._thread.native_id)
        stats = (Path(f"/proc/self/task/{thread}/schedstat") for thread in threads)
        return sum(int(path.read_text().split()[1]) for path in stats) / 1e9 + self._late_s

    def take(self):
        """Return what arrived since the last call."""
        with self._changed:
            data = bytes(self.arrived)
            self.arrived.clear()
        return data

    def stop(self):
        self._stopped = True
        self._tell()
        self._thread.join(10)
        assert not self._thread.is_alive(), "the peer's thread hangs"
        os.close(self._wake)
        self.peer.close()

    def _tell(self):
        os.eventfd_write(self._wake, 1)

    # The thread

    def _run(self):
        self._due = self._next_read = 0.0
        while not self._stopped:
            writes, reads, pause = self._plans(time.monotonic())
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            if (writes or reads) and self.peer.sock.fileno() >= 0:
                poll.register(self.peer.sock, writes | reads)
            before = time.monotonic()
            happened = dict(poll.poll(pause * 1000))
            if not happened:
                self._late_s += max(0.0, time.monotonic() - before - pause - _EXACT_S)
            if happened.pop(self._wake, 0):
                os.eventfd_read(self._wake)
            for events in happened.values():
                self._move(events, reads)

    def _plans(self, now):
        """Return what to poll for, and how long."""
        pause = _TICK_S
        for alarm in list(self._alarms):
            if now >= alarm[0]:
                self.calm(alarm)
                alarm[1]()
            else:
                pause = min(pause, alarm[0] - now)
        writes = 0
        while self._queue:
            head = self._queue[0]
            if isinstance(head, bytes):
                writes = select.POLLOUT
                break
            if isinstance(head, float):
                self._due = self._due or now + head
                if now < self._due:
                    pause = min(pause, self._due - now)
                    break
                self._due = 0.0
            else:
                with contextlib.suppress(OSError):  # the Stream may have reset the connection
                    head()
            self._done()
        reads = 0
        if self.reading != "none" and not self.ended:
            wait = self._next_read - now if self.reading == "slow" else 0
            reads = 0 if wait > 0 else select.POLLIN
            pause = min(pause, wait) if wait > 0 else pause
        return writes, reads, pause

    def _done(self):
        with self._changed:
            self._queue.popleft()
            self._changed.notify_all()

    def _move(self, events, reads):
        sock = self.peer.sock
        if events & select.POLLOUT and self._queue and isinstance(self._queue[0], bytes):
            try:
                rest = self._queue[0][sock.send(self._queue[0], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                return
            except OSError:  # what came before the reset can still be read
                self._reset = True
                with self._changed:
                    self._queue.clear()
                    self._changed.notify_all()
                return
            if rest:
                self._queue[0] = rest
            else:
                self._done()
        if reads and events & ~select.POLLOUT:
            self._receive(sock)

    def _receive(self, sock):
        data = b""
        try:
            data = sock.recv(SLOW_BYTES if self.reading == "slow" else 1 << 18, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self._reset = True
        self._next_read = time.monotonic() + SLOW_S
        with self._changed:
            self.arrived += data
            if not data:
                self.ended = "reset" if self._reset else "fin"
            self._changed.notify_all()
