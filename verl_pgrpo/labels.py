# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Labels to row numbers: an open-addressing hash table in numpy arrays.

A `dict` of ten million labels holds ten million string and integer objects, some 130 bytes each beside the text. Here a
label costs its UTF-8 bytes and about 24 bytes more, and looking up a batch is a few vectorised steps in the batch's own
size. A hash only finds the candidate; the text decides, so two labels never share a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LabelIndex"]

Integers = NDArray[np.int64]

Hashes = NDArray[np.uint64]

_EMPTY = np.uint64(2**64 - 1)
_HALF = np.uint64(32)
_LOWER = np.uint64(2**32 - 1)


class _Prepared(NamedTuple):
    """Labels that were looked up when the index had `size` labels."""

    labels: Sequence[str]
    size: int
    numbers: Integers
    hashes: Hashes


class LabelIndex:
    """Distinct labels, numbered 0, 1, ... in the order of their first appearance.

    Labels are any text that UTF-8 can encode, including the empty one. Hashes are Python's own, which are salted for
    each process: nobody can choose labels that collide, and nothing of them is stored on disk.
    """

    __slots__ = ("_ends", "_prepared", "_size", "_table", "_text")

    def __init__(self) -> None:
        self._size = 0
        self._prepared: _Prepared | None = None
        self._text = bytearray()  # all labels' UTF-8, one behind the other
        self._ends: Integers = np.zeros(0, dtype=np.int64)  # where label i ends in _text
        # Hash slot -> hash (upper half) and label number (lower half): the hash decides most comparisons without a look
        # at the text, and the table can grow without one. The size is a power of two.
        self._table = np.full(8, _EMPTY, dtype=np.uint64)

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        """Bytes held, the labels' own text apart."""
        return self._ends.nbytes + self._table.nbytes

    @property
    def text_nbytes(self) -> int:
        """Bytes of the labels' UTF-8."""
        return len(self._text)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, self._size, 1 << 16):
            offsets, text = self.encoded(start, min(start + (1 << 16), self._size))
            yield from (text[begin:end].decode() for begin, end in pairwise(offsets.tolist()))

    def encoded(self, start: int, end: int) -> tuple[Integers, bytes]:
        """UTF-8 of the labels `start` to `end - 1`, one behind the other, and where each begins (and the last ends)."""
        begin = int(self._ends[start - 1]) if start else 0
        ends = self._ends[start:end]
        offsets = np.concatenate(([begin], ends)) - begin
        return offsets, bytes(memoryview(self._text)[begin : begin + int(offsets[-1])])

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
        return self._probe(labels)[0]

    def add(self, labels: Sequence[str]) -> Integers:
        """Number of each of these distinct labels, (N,); unknown ones are added.

        Raises:
            UnicodeEncodeError: a label that is not text (a lone surrogate); nothing is added then.
        """
        prepared, self._prepared = self._prepared, None
        if prepared is None or prepared.labels is not labels or prepared.size != self._size:
            prepared = self._looked_up(labels)
        unknown = np.flatnonzero(prepared.numbers < 0)
        if len(unknown):
            prepared.numbers[unknown] = np.arange(self._size, self._size + len(unknown))
            self._append([labels[i] for i in unknown.tolist()], prepared.hashes[unknown])
        return prepared.numbers

    def _looked_up(self, labels: Sequence[str]) -> _Prepared:
        return _Prepared(labels, self._size, *self._probe(labels))

    def reserve(self, size: int) -> None:
        """Make room for `size` labels in all, so that adding them grows nothing on the way."""
        if size > len(self._ends):
            grown = np.zeros(size, dtype=np.int64)
            grown[: self._size] = self._ends[: self._size]
            self._ends = grown
        if size > len(self._table) * 2 // 3:
            entries = self._table[self._table != _EMPTY]
            self._table = np.full(1 << (size * 3 // 2).bit_length(), _EMPTY, dtype=np.uint64)
            self._insert(entries)

    def _append(self, labels: list[str], hashes: Hashes) -> None:
        text = "".join(labels).encode()
        sizes = np.fromiter(map(len, labels), dtype=np.int64, count=len(labels))
        if sizes.sum() != len(text):  # not all of it ASCII, where a character is a byte
            sizes = np.fromiter((len(label.encode()) for label in labels), dtype=np.int64, count=len(labels))
        old, new = self._size, self._size + len(labels)
        if new > len(self._ends) or new > len(self._table) * 2 // 3:
            # An eighth more than needed: growing stays linear in all, and little memory lies idle.
            self.reserve(max(new, old + old // 8))
        self._ends[old:new] = len(self._text) + np.cumsum(sizes)
        self._text += text
        self._size = new
        self._insert(hashes << _HALF | np.arange(old, new, dtype=np.uint64))

    def _insert(self, entries: Hashes) -> None:
        """Put entries of labels that are not in the table into it: all at once, whoever loses a slot moves on."""
        mask = len(self._table) - 1
        slots = (entries >> _HALF).astype(np.int64) & mask
        for step in count(1):
            if not len(entries):
                return
            free = np.flatnonzero(self._table[slots] == _EMPTY)
            self._table[slots[free]] = entries[free]
            lost = self._table[slots] != entries
            entries, slots = entries[lost], (slots[lost] + step) & mask  # triangular steps reach every slot

    def _probe(self, labels: Sequence[str]) -> tuple[Integers, Hashes]:
        """Number (-1 if unknown) and hash (32 bits) of each label."""
        wide = np.fromiter(map(hash, labels), dtype=np.int64, count=len(labels)).view(np.uint64)
        hashes: Hashes = (wide ^ (wide >> _HALF)) & _LOWER
        numbers = np.full(len(labels), -1, dtype=np.int64)
        mask = len(self._table) - 1
        pending = np.arange(len(labels))
        slots = hashes.astype(np.int64) & mask
        for step in count(1):
            if not len(pending):
                break
            found = self._table[slots]
            alike = np.flatnonzero((found >> _HALF == hashes[pending]) & (found != _EMPTY))
            candidates, rows = (found[alike] & _LOWER).astype(np.int64), pending[alike]
            same = self._same_text(candidates, [labels[row].encode() for row in rows.tolist()])
            numbers[rows[same]] = candidates[same]
            going = (found != _EMPTY) & (numbers[pending] < 0)
            pending, slots = pending[going], (slots[going] + step) & mask
        return numbers, hashes

    def _same_text(self, numbers: Integers, encoded: list[bytes]) -> NDArray[np.bool_]:
        """Which of the stored labels `numbers` are byte for byte the given ones."""
        starts = np.where(numbers > 0, self._ends[numbers - 1], 0)
        sizes = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        # bytearray.startswith compares in place, where a slice would copy.
        starting = map(self._text.startswith, encoded, starts.tolist())
        equal = np.fromiter(starting, dtype=np.bool_, count=len(encoded))
        same: NDArray[np.bool_] = equal & (self._ends[numbers] - starts == sizes)
        return same
