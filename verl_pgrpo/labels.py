# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Labels to row numbers: an open-addressing hash table in numpy arrays.

A `dict` of ten million labels holds ten million string and integer objects, some 130 bytes each beside the text. Here a
label costs its UTF-8 bytes and about 24 bytes more, and looking up a batch is a few vectorised steps in the batch's own
size. A hash only finds the candidate; the text decides, so two labels never share a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LabelIndex"]

Integers = NDArray[np.int64]

_EMPTY = -1


class _Prepared(NamedTuple):
    """Labels that were looked up when the index had `size` labels."""

    labels: Sequence[str]
    size: int
    encoded: list[bytes]
    numbers: Integers
    hashes: NDArray[np.uint32]


class LabelIndex:
    """Distinct labels, numbered 0, 1, ... in the order of their first appearance.

    Labels are any text that UTF-8 can encode, including the empty one. Hashes are Python's own, which are salted for
    each process: nobody can choose labels that collide, and nothing of them is stored on disk.
    """

    __slots__ = ("_ends", "_hashes", "_prepared", "_size", "_table", "_text")

    def __init__(self) -> None:
        self._size = 0
        self._prepared: _Prepared | None = None
        self._text = bytearray()  # all labels' UTF-8, one behind the other
        self._ends: Integers = np.zeros(0, dtype=np.int64)  # where label i ends in _text
        self._hashes = np.zeros(0, dtype=np.uint32)  # to grow the table without reading the text
        self._table = np.full(8, _EMPTY, dtype=np.int32)  # hash slot -> label number; a power of two

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        """Bytes held, the labels' own text apart."""
        return self._ends.nbytes + self._hashes.nbytes + self._table.nbytes

    @property
    def text_nbytes(self) -> int:
        """Bytes of the labels' UTF-8."""
        return len(self._text)

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends[: self._size].tolist():
            yield self._text[start:end].decode()
            start = end

    def label(self, number: int) -> str:
        """The label with this number."""
        if not 0 <= number < self._size:
            raise IndexError(f"label {number} of {self._size}")
        start = int(self._ends[number - 1]) if number else 0
        return self._text[start : int(self._ends[number])].decode()

    def prepare(self, labels: Sequence[str]) -> None:
        """Look these distinct labels up ahead of `add`, which then takes what was found if it gets the same list."""
        self._prepared = self._looked_up(labels)

    def find(self, labels: Sequence[str]) -> Integers:
        """Number of each of these distinct labels, (N,); -1 for unknown ones."""
        return self._probe(labels, [label.encode() for label in labels])[0]

    def add(self, labels: Sequence[str]) -> Integers:
        """Number of each of these distinct labels, (N,); unknown ones are added.

        Raises:
            UnicodeEncodeError: a label that is not text (a lone surrogate); nothing is added then.
        """
        prepared, self._prepared = self._prepared, None
        if prepared is None or prepared.labels is not labels or prepared.size != self._size:
            prepared = self._looked_up(labels)
        unknown = np.flatnonzero(prepared.numbers == _EMPTY)
        if len(unknown):
            prepared.numbers[unknown] = np.arange(self._size, self._size + len(unknown))
            self._append([prepared.encoded[i] for i in unknown.tolist()], prepared.hashes[unknown])
        return prepared.numbers

    def _looked_up(self, labels: Sequence[str]) -> _Prepared:
        encoded = [label.encode() for label in labels]
        return _Prepared(labels, self._size, encoded, *self._probe(labels, encoded))

    def _append(self, encoded: list[bytes], hashes: NDArray[np.uint32]) -> None:
        old, new = self._size, self._size + len(encoded)
        if new > len(self._ends):
            # An eighth more than needed: growing stays linear in all, and little memory lies idle.
            room = new + new // 8
            self._ends = _grown(self._ends, old, room)
            self._hashes = _grown(self._hashes, old, room)
        ends = np.fromiter(accumulate(map(len, encoded), initial=len(self._text)), dtype=np.int64)
        self._ends[old:new] = ends[1:]
        self._hashes[old:new] = hashes
        self._text += b"".join(encoded)
        self._size = new
        if new > len(self._table) * 2 // 3:
            self._table = np.full(1 << (new * 3 // 2).bit_length(), _EMPTY, dtype=np.int32)
            self._insert(np.arange(new, dtype=np.int64))
        else:
            self._insert(np.arange(old, new, dtype=np.int64))

    def _insert(self, numbers: Integers) -> None:
        """Put labels, known to be absent, into the table: all at once, whoever loses a slot moves on."""
        mask = len(self._table) - 1
        slots = self._hashes[numbers].astype(np.int64) & mask
        while len(numbers):
            free = np.flatnonzero(self._table[slots] == _EMPTY)
            self._table[slots[free]] = numbers[free]
            lost = self._table[slots] != numbers
            numbers, slots = numbers[lost], (slots[lost] + 1) & mask

    def _probe(self, labels: Sequence[str], encoded: list[bytes]) -> tuple[Integers, NDArray[np.uint32]]:
        """Number (-1 if unknown) and hash of each label."""
        wide = np.fromiter(map(hash, labels), dtype=np.int64, count=len(labels)).view(np.uint64)
        hashes: NDArray[np.uint32] = (wide ^ (wide >> np.uint64(32))).astype(np.uint32)
        numbers = np.full(len(labels), _EMPTY, dtype=np.int64)
        mask = len(self._table) - 1
        pending = np.arange(len(labels))
        slots = hashes.astype(np.int64) & mask
        while len(pending):
            found = self._table[slots].astype(np.int64)
            occupied = found != _EMPTY
            pending, slots, found = pending[occupied], slots[occupied], found[occupied]
            candidates = np.flatnonzero(self._hashes[found] == hashes[pending])
            same = self._same_text(found[candidates], [encoded[i] for i in pending[candidates].tolist()])
            numbers[pending[candidates[same]]] = found[candidates[same]]
            going = numbers[pending] == _EMPTY
            pending, slots = pending[going], (slots[going] + 1) & mask
        return numbers, hashes

    def _same_text(self, numbers: Integers, encoded: list[bytes]) -> NDArray[np.bool_]:
        """Which of the stored labels `numbers` are byte for byte the given ones."""
        ends = self._ends[numbers]
        starts = np.where(numbers > 0, self._ends[numbers - 1], 0)
        same: NDArray[np.bool_] = ends - starts == np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        # bytearray.startswith compares in place, where a slice would copy.
        starting = map(self._text.startswith, encoded, starts.tolist())
        return same & np.fromiter(starting, dtype=np.bool_, count=len(encoded))


def _grown(array: NDArray, used: int, size: int) -> NDArray:
    grown = np.zeros(size, dtype=array.dtype)
    grown[:used] = array[:used]
    return grown
