"""The reference records of the conformance suite, as in ../record/record.go."""

from dataclasses import dataclass
from typing import List, Optional, Tuple

PER_PARTITION = 1000


@dataclass
class Record:
    partition: int
    offset: int
    timestamp: int
    key: Optional[bytes]
    value: Optional[bytes]
    headers: List[Tuple[str, bytes]]


def fail(what):
    raise AssertionError(what)


class Reference:
    def __init__(self, salt, timebase):
        self.salt = salt
        self.timebase = timebase

    def time(self, i):
        return self.timebase + 1000 * i

    def at(self, partition, offset):
        i = partition * PER_PARTITION + offset
        value = None if i % 10 == 9 else f"{self.salt}-{i}-{'abcdefghij' * (i % 8)}".encode()
        headers = [("idx", str(i).encode()), ("bin", b"\xff\xfe\x01"), ("empty", b"")]
        return Record(partition, offset, self.time(i), f"key-{i}".encode(), value, headers)

    def check(self, got):
        want = self.at(got.partition, got.offset)
        if got != want:
            fail(f"got {got}, want {want}")

    def check_run(self, got, partition, start, count):
        for i, r in enumerate(got):
            if (r.partition, r.offset) != (partition, start + i):
                fail(f"record number {i} is {r.partition}:{r.offset}, want {partition}:{start + i}")
            self.check(r)
        if len(got) != count:
            fail(f"{len(got)} records from offset {start} on, want {count}")
