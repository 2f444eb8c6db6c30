"""CRC-32 of what may be large."""

from __future__ import annotations

import os
import zlib
from concurrent.futures import ThreadPoolExecutor

_Buffer = bytes | bytearray | memoryview

_LARGE_BYTES = 8 * 1024 * 1024  # takes about a millisecond
_THREADS = min(os.cpu_count() or 1, 4)
_POLYNOMIAL = 0xEDB88320


def crc32(content: _Buffer, before: int = 0) -> int:
    """What :func:`zlib.crc32` gives; what is large is divided among the CPUs.

    :param before: the checksum of what stands before the content.
    """
    size = memoryview(content).nbytes
    if size < _LARGE_BYTES or _THREADS == 1:
        return zlib.crc32(content, before)
    view = memoryview(content).cast("B")
    share = -(-size // _THREADS)
    shares = [view[start : start + share] for start in range(0, size, share)]
    with ThreadPoolExecutor(len(shares) - 1) as others:
        sums = others.map(zlib.crc32, shares[1:])
        checksum = zlib.crc32(shares[0], before)
        for part, following in zip(shares[1:], sums, strict=True):
            checksum = _joined(checksum, following, part.nbytes)
    return checksum


def _joined(first: int, second: int, length: int) -> int:
    """The checksum of two pieces, of which the second one has this length.

    A checksum is the remainder of the content as a polynomial: the first one is moved to the left
    by as many bits as come after it.
    """
    power, square = 1 << 31, 1 << 23  # x^0 and x^8: the bits are reversed
    while length:
        if length & 1:
            power = _product(power, square)
        square = _product(square, square)
        length >>= 1
    return _product(power, first) ^ second


def _product(one: int, other: int) -> int:
    """The product of two remainders."""
    product = 0
    for bit in range(31, -1, -1):
        if one >> bit & 1:
            product ^= other
        other = other >> 1 ^ (_POLYNOMIAL if other & 1 else 0)
    return product
