"""A network camera: RTSP over TCP, JPEG pictures over RTP (RFC 2326, RFC 2435), behind a password. Python alone."""

from __future__ import annotations

import base64
import contextlib
import itertools
import socket
import struct
import threading
import time
from dataclasses import dataclass

import cv2
import numpy as np

FRAME_SECONDS = 0.02
JPEG_PAYLOAD, CLOCK = 26, 90_000
PIECE = 1400
"""Bytes of a picture in a packet."""


@dataclass(frozen=True)
class Scan:
    """What RTP sends of a JPEG: its quantisation tables and its compressed pixels; the rest the receiver makes up."""

    tables: bytes
    data: bytes

    @classmethod
    def of(cls, image: np.ndarray) -> Scan:
        """Of (H, W, 3) uint8, sides multiples of 8; 4:2:0 and standard Huffman tables, as RTP takes for granted."""
        sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
        jpeg = cv2.imencode(".jpg", image, sampling)[1].tobytes()
        tables, place = b"", 2
        while True:
            marker, length = struct.unpack_from(">HH", jpeg, place)
            body = jpeg[place + 4 : place + 2 + length]
            place += 2 + length
            if marker == 0xFFDB:
                tables += b"".join(body[start + 1 : start + 65] for start in range(0, len(body), 65))
            if marker == 0xFFDA:
                return cls(tables, jpeg[place : jpeg.rindex(b"\xff\xd9")])


class RtspCamera:
    """Shows a grey picture of `value` while it is on. port: stays the same. seen: requests with the password."""

    def __init__(self, user: str, password: str, width: int = 64, height: int = 48) -> None:
        self.value = 50
        self.seen = 0
        self.port = 0
        self._size = (height, width)
        self._credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._listening: socket.socket | None = None
        self._connections: list[socket.socket] = []
        self._lock = threading.Lock()

    def on(self) -> None:
        """Listens on the port it had before."""
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def off(self) -> None:
        """Cuts every connection in the middle of whatever is sent."""
        with self._lock:
            listening, self._listening = self._listening, None
            sockets = [*self._connections, *([listening] if listening is not None else [])]
            self._connections = []
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = listening.accept()[0]
                with self._lock:
                    if self._listening is not listening:
                        connection.close()
                        return
                    self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rb") as incoming:
            while line := incoming.readline().decode().split():
                headers = dict(header.decode().strip().split(": ", 1) for header in iter(incoming.readline, b"\r\n"))
                connection.sendall(self._answer(line[0], line[1], headers))
                if line[0] == "PLAY" and headers.get("Authorization"):
                    self._play(connection)

    def _answer(self, method: str, url: str, headers: dict[str, str]) -> bytes:
        status, more, body = "200 OK", "", ""
        if method != "OPTIONS" and headers.get("Authorization") != f"Basic {self._credentials}":
            status, more = "401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"\r\n'
        elif method == "DESCRIBE":
            more = f"Content-Base: {url}/\r\nContent-Type: application/sdp\r\n"
            lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=camera", "c=IN IP4 0.0.0.0", "t=0 0"]
            lines += [f"m=video 0 RTP/AVP {JPEG_PAYLOAD}", f"a=framerate:{1 / FRAME_SECONDS:.0f}", "a=control:video"]
            body = "".join(f"{line}\r\n" for line in lines)
        elif method == "SETUP":
            assert "TCP" in headers["Transport"], headers
            more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
        elif method == "PLAY":
            more = "Session: 1\r\nRange: npt=0-\r\n"
        self.seen += "Authorization" in headers and status == "200 OK"
        head = f"RTSP/1.0 {status}\r\nCSeq: {headers['CSeq']}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
        return (head + body).encode()

    def _play(self, connection: socket.socket) -> None:
        """Sends frames until the connection is cut."""
        height, width = self._size
        sequence, began = itertools.count(), time.monotonic()
        while True:
            scan = Scan.of(np.full((height, width, 3), self.value, np.uint8))
            moment = int((time.monotonic() - began) * CLOCK) & 0xFFFFFFFF
            for start in range(0, len(scan.data), PIECE):
                piece = scan.data[start : start + PIECE]
                last = start + PIECE >= len(scan.data)
                packet = struct.pack(">BBHII", 0x80, JPEG_PAYLOAD | last << 7, next(sequence) & 0xFFFF, moment, 0x0ED6E)
                # Type 1 is 4:2:0; quality 255 says that the tables come along, in the first packet.
                packet += struct.pack(">IBBBB", start, 1, 255, width // 8, height // 8)
                if start == 0:
                    packet += struct.pack(">BBH", 0, 0, len(scan.tables)) + scan.tables
                connection.sendall(struct.pack(">cBH", b"$", 0, len(packet + piece)) + packet + piece)
            time.sleep(FRAME_SECONDS)
