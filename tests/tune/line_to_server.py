"""A line to a server that can be cut, as when the network between is down, and that can hold single requests back."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress

_CHUNK = 1 << 16
HOLD = 300.0  # seconds at most for which a request is held back


class LineToServer:
    """Passes connections on to a server.

    Args:
        host: of the server.
        port: of the server.

    Attributes:
        port: where it takes connections, on this machine.
        held: set when a request is held back.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._sockets: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._pattern: re.Pattern[bytes] | None = None
        self._release = threading.Event()
        self.held = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port: int = self._listener.getsockname()[1]
        self._accept(self._listener)

    def cut(self) -> None:
        """Breaks every connection, and refuses new ones."""
        self._listener.shutdown(socket.SHUT_RDWR)  # else the thread that waits in it keeps it open
        self._listener.close()
        with self._guard:
            for one in self._sockets:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self._sockets.clear()

    def mend(self) -> None:
        """Takes connections again, at the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=200)
        self._accept(self._listener)

    def hold(self, pattern: str) -> None:
        """Holds back the next requests whose first line matches, until `let_go`; sets `held` when one has come."""
        self._release.clear()
        self.held.clear()
        self._pattern = re.compile(pattern.encode())

    def let_go(self) -> None:
        """Passes on what was held back."""
        self._pattern = None
        self._release.set()

    def close(self) -> None:
        """Ends it."""
        self.let_go()
        with suppress(OSError):
            self.cut()

    def _accept(self, listener: socket.socket) -> None:
        threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(self._server)
            except OSError:
                return
            with self._guard:
                self._sockets |= {near, far}
            for source, target, asks in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pump, args=(source, target, asks), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                if asks and self._pattern and self._pattern.search(data.partition(b"\r\n")[0]):
                    self.held.set()
                    self._release.wait(HOLD)
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._guard:
            self._sockets -= {source, target}
