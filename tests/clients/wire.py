"""A stretch of wire between a client and the proxy: passes every byte alone, or notes down what clients send.

    Relay(to)                      passes on what comes, as it comes
    Relay(to, bytewise=True)       each byte by itself, both ways
    Relay(to, book=Book())         notes down what clients without TLS say after their login
"""

import re
import socket
import threading

SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
# What a server says unasked, and what depends on how much a table holds: neither tells that it is the client's turn.
UNCOUNTED = b"SNADd"


class Book:
    """What the clients of one run have said: their statements, and their sessions message by message."""

    def __init__(self):
        self.statements = []
        self.sessions = []
        self._lock = threading.Lock()

    def session(self, startup):
        session = []
        with self._lock:
            self.sessions.append((startup, session))
        return session

    def statement(self, text):
        with self._lock:
            self.statements.append(text)


class Messages:
    """Cuts a stream of bytes into messages of the protocol; the client's begins with those that have no type."""

    def __init__(self, untyped):
        self.rest = b""
        self.untyped = untyped

    def feed(self, data):
        self.rest += data
        while True:
            head = 0 if self.untyped else 1
            if len(self.rest) < head + 4:
                return
            end = head + int.from_bytes(self.rest[head:head + 4], "big")
            if len(self.rest) < end:
                return
            kind, body = self.rest[:head], self.rest[head + 4:end]
            self.rest = self.rest[end:]
            if self.untyped:
                code = int.from_bytes(body[:4], "big")
                self.untyped = code in (SSL_REQUEST, GSS_REQUEST)
                kind = b"" if self.untyped or code == CANCEL_REQUEST else b"startup"
            yield kind, body


class Notes:
    """Notes one connection down: turns of `wait for so many messages of the server, then say these`."""

    def __init__(self, book):
        self.book = book
        self.up, self.down = Messages(untyped=True), Messages(untyped=False)
        self.skip = 0
        self.ready = False
        self.heard = self.said_at = 0
        self.session = None
        self.startup = []
        self.lock = threading.Lock()

    def client(self, data):
        with self.lock:
            for kind, body in self.up.feed(data):
                if kind == b"":
                    self.skip += 1  # answered by one byte that is no message
                elif kind == b"startup":
                    words = body[4:].split(b"\0")
                    self.startup = list(zip(words[0::2], words[1::2]))
                elif self.ready:
                    self._note(kind, body)

    def _note(self, kind, body):
        if self.session is None:
            self.session = self.book.session(self.startup)
        if not self.session or self.heard != self.said_at:
            self.session.append((self.heard, []))
            self.said_at = self.heard
        self.session[-1][1].append((kind, body))
        if kind == b"Q":
            self.book.statement(body[:-1].decode())
        elif kind == b"P":
            self.book.statement(body.split(b"\0")[1].decode())

    def server(self, data):
        with self.lock:
            data, self.skip = data[self.skip:], max(0, self.skip - len(data))
            for kind, _ in self.down.feed(data):
                if not self.ready:
                    self.ready = kind == b"Z"
                elif kind not in UNCOUNTED:
                    self.heard += 1


class Relay:
    """Listens on `port`, and passes on what comes to another port of this machine."""

    def __init__(self, to, bytewise=False, book=None):
        self.to, self.bytewise, self.book = to, bytewise, book
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.listener.close()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                return
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            notes = Notes(self.book) if self.book else None
            for source, sink, heard in ((near, far, notes and notes.client), (far, near, notes and notes.server)):
                threading.Thread(target=self._carry, args=(source, sink, heard), daemon=True).start()

    def _carry(self, source, sink, heard):
        try:
            while data := source.recv(65536):
                if heard:
                    heard(data)
                if self.bytewise:
                    for at in range(len(data)):
                        sink.send(data[at:at + 1])
                else:
                    sink.sendall(data)
        except OSError:
            pass
        for end, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
            try:
                end.shutdown(how)
            except OSError:
                pass


def corpus(book):
    """The statements, each followed by a line that ends it."""
    return "".join(f"{statement.rstrip()}\n-- .\n" for statement in deduplicated(book.statements))


def sessions(book):
    """The sessions: the start-up's settings, then turns; a message is its type and its body, escaped."""
    lines = []
    for startup, session in book.sessions:
        settings = " ".join(escaped(name + b"=" + value) for name, value in startup if name not in (b"user", b"database", b""))
        lines.append(f"session {settings}".rstrip())
        for heard, said in session:
            lines.append(f"after {heard}")
            lines.extend(f"{kind.decode()} {escaped(body)}".rstrip() for kind, body in said)
    return "\n".join(lines) + "\n"


def escaped(data):
    """Printable ASCII as it is, the rest and what would mislead as `\\xx`."""
    return "".join(chr(byte) if 33 <= byte < 127 and byte != 92 else f"\\{byte:02x}" for byte in data)


def deduplicated(statements):
    """Each statement once, where those that differ in literals, numbers and made-up names count as one."""
    masks = [(r"'(?:[^']|'')*'", "''"), (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22,}", "UUID"), (r"0x[0-9a-f]{6,}", "POINTER"), (r"\d+", "0"),
             (r"\s+", " "), (r"0(?:, ?0)+", "0"), (r"''(?:, ?'')+", "''")]
    found = {}
    for statement in statements:
        key = statement
        for pattern, word in masks:
            key = re.sub(pattern, word, key)
        found.setdefault(key, statement)
    return list(found.values())
