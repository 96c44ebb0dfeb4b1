"""A small RFB 3.8 client (RFC 6143) for tests: connect, authenticate, read the screen, type, point."""
import select
import socket
import struct
import subprocess


class RfbError(Exception):
    """The server refused or closed the connection."""


def vnc_response(challenge, password):
    """VNC authentication: DES with the password's bits mirrored. Single DES is 3DES with one key three times."""
    key = bytes(int(f"{b:08b}"[::-1], 2) for b in password.encode()[:8].ljust(8, b"\0"))
    return subprocess.run(["openssl", "enc", "-des-ede3", "-nopad", "-K", (key * 3).hex()], input=challenge,
                          stdout=subprocess.PIPE, check=True).stdout


class Rfb:
    """One client. pixels: width * height * 4 bytes, B G R x, as of the last update()."""

    def __init__(self, address, password=None, shared=True, timeout=10, before_encodings=None):
        if isinstance(address, socket.socket):
            self.sock = address
        else:
            self.sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET, socket.SOCK_STREAM)
            self.sock.connect(address)
        self.sock.settimeout(timeout)
        assert self.read(12) == b"RFB 003.008\n"
        self.sock.sendall(b"RFB 003.008\n")
        count = self.read(1)[0]
        if not count:
            raise RfbError(self.read(struct.unpack(">I", self.read(4))[0]).decode())
        self.security = list(self.read(count))
        self.sock.sendall(bytes([2 if password is not None else 1]))
        if password is not None:
            self.sock.sendall(vnc_response(self.read(16), password))
        if struct.unpack(">I", self.read(4))[0]:
            raise RfbError(self.read(struct.unpack(">I", self.read(4))[0]).decode())
        self.sock.sendall(bytes([shared]))
        self.width, self.height = struct.unpack(">HH", self.read(4))
        self.read(16)
        self.name = self.read(struct.unpack(">I", self.read(4))[0]).decode()
        if before_encodings:
            before_encodings()
        # 32 bits, little-endian, red at bit 16; raw and DesktopSize (-223) are enough.
        self.sock.sendall(struct.pack(">BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))
        self.sock.sendall(struct.pack(">BxHii", 2, 2, 0, -223))
        self.pixels = bytearray(self.width * self.height * 4)

    def read(self, n):
        data = b""
        while len(data) < n:
            part = self.sock.recv(n - len(data))
            if not part:
                raise RfbError("connection closed")
            data += part
        return data

    def request(self, incremental):
        self.sock.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))

    def update(self, incremental=True, patience=None):
        """Ask for an update and take it; returns the rectangles (x, y, w, h, encoding). With patience, none when no
        message begins within so many seconds; one that has begun is always read to its end."""
        self.request(incremental)
        while True:
            if patience is not None and not select.select([self.sock], [], [], patience)[0]:
                return []
            kind = self.read(1)[0]
            if kind == 0:
                return [self._rectangle() for _ in range(struct.unpack(">xH", self.read(3))[0])]
            if kind == 1:
                self.read(6 * struct.unpack(">xHH", self.read(5))[1])
            elif kind == 3:
                self.read(struct.unpack(">xxxI", self.read(7))[0])
            else:
                assert kind == 2, kind

    def _rectangle(self):
        x, y, w, h, encoding = struct.unpack(">HHHHi", self.read(12))
        if encoding == -223:
            self.width, self.height = w, h
            self.pixels = bytearray(w * h * 4)
        else:
            assert encoding == 0, encoding
            data = self.read(w * h * 4)
            for row in range(h):
                at = ((y + row) * self.width + x) * 4
                self.pixels[at:at + w * 4] = data[row * w * 4:(row + 1) * w * 4]
        return x, y, w, h, encoding

    def pixel(self, x, y):
        at = (y * self.width + x) * 4
        return self.pixels[at + 2] << 16 | self.pixels[at + 1] << 8 | self.pixels[at]

    def key(self, keysym, down):
        self.sock.sendall(struct.pack(">BBxxI", 4, down, keysym))

    def type(self, text):
        for c in text:
            keysym = 0xff0d if c == "\n" else ord(c)
            self.key(keysym, 1)
            self.key(keysym, 0)

    def pointer(self, x, y, buttons=0):
        self.sock.sendall(struct.pack(">BBHH", 5, buttons, x, y))

    def close(self):
        self.sock.close()
