"""A reader of kdump-compressed files, flattened or not: just enough to get at a page."""

import ctypes
import struct
import zlib

PAGE = 4096


def unflatten(data):
    """makedumpfile's flattened form laid out flat."""
    assert struct.unpack_from(">qq", data, 16) == (1, 1)
    flat, at = bytearray(), PAGE
    while True:
        offset, size = struct.unpack_from(">qq", data, at)
        at += 16
        if (offset, size) == (-1, -1):
            assert at == len(data), "nothing follows the end"
            return bytes(flat)
        assert offset >= 0 and 0 < size <= len(data) - at
        flat.extend(bytes(max(0, offset + size - len(flat))))
        flat[offset:offset + size] = data[at:at + size]
        at += size


def expand_lzo(data):
    out, size = ctypes.create_string_buffer(PAGE), ctypes.c_ulong(PAGE)
    assert ctypes.CDLL("liblzo2.so.2").lzo1x_decompress_safe(data, ctypes.c_ulong(len(data)), out, ctypes.byref(size), None) == 0
    return out.raw[:size.value]


def expand_snappy(data):
    out, size = ctypes.create_string_buffer(PAGE), ctypes.c_size_t(PAGE)
    assert ctypes.CDLL("libsnappy.so.1").snappy_uncompress(data, ctypes.c_size_t(len(data)), out, ctypes.byref(size)) == 0
    return out.raw[:size.value]


class Kdump:
    """Of a 64-bit guest or one with a 32-bit header."""

    def __init__(self, path):
        with open(path, "rb") as file:
            data = file.read()
        self.data = data = unflatten(data) if data.startswith(b"makedumpfile\0") else data
        assert data[:8] == b"KDUMP   " and struct.unpack_from("<I", data, 8) == (6,)
        machine = data[12 + 4 * 65:].split(b"\0", 1)[0]
        # The block size is a page: where it stands tells the width.
        at = 412 if struct.unpack_from("<I", data, 416)[0] == PAGE else 424
        assert machine in (b"x86_64", b"i686")
        self.compressed, self.block, sub, bitmaps, _ = struct.unpack_from("<5I", data, at)
        assert self.block == PAGE
        first = (1 + sub) * PAGE
        self.present, self.written = (data[first + i * bitmaps // 2 * PAGE:][:bitmaps // 2 * PAGE] for i in range(2))
        assert self.present == self.written
        self.descriptors = first + bitmaps * PAGE
        self.order = {}
        for byte, bits in enumerate(self.written):
            for bit in range(8):
                if bits >> bit & 1:
                    self.order[8 * byte + bit] = len(self.order)

    def page(self, number):
        if number not in self.order:
            return None
        offset, size, flags, _ = struct.unpack_from("<QIIQ", self.data, self.descriptors + 24 * self.order[number])
        data = self.data[offset:offset + size]
        assert flags in (0, self.compressed)
        page = {0: bytes, 1: zlib.decompress, 2: expand_lzo, 4: expand_snappy}[flags](data)
        assert len(page) == PAGE
        return page
