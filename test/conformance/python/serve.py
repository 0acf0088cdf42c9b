"""Runs the conformance cases with a Python client: serve.py confluent|kafka-python|aiokafka.

Reads one case a line on standard input and answers one line on standard output; ../README.md
describes the lines. The cases are written once over the small interface that with_confluent.py,
with_kafka_python.py and with_aiokafka.py implement.
"""

import importlib
import logging
import os
import sys
import time
import traceback

from reference import Reference, Record, fail

MODULES = {"confluent": "with_confluent", "kafka-python": "with_kafka_python", "aiokafka": "with_aiokafka"}


class Case:
    def __init__(self, client, params):
        self.client = client
        self.params = params
        self.topic = params["topic"]
        self.group = params["group"]
        self.ref = Reference(params["salt"], int(params["timebase"]))
        self.deadline = time.monotonic() + int(params["seconds"])
        self.next = {}

    def num(self, key):
        return int(self.params[key])

    def offsets(self):
        return [int(s) for s in self.params["offsets"].split(",")]

    def in_time(self, what):
        if time.monotonic() > self.deadline:
            fail(f"time is up: {what}")

    def read(self, start, count):
        reader = self.client.reader(self.topic, 0, start)
        got = []
        try:
            while len(got) < count:
                self.in_time(f"{len(got)} of {count} records from {start}")
                got += reader.poll()
        finally:
            reader.close()
        return got[:count]

    def produce(self):
        count, parts = self.num("count"), int(self.params.get("parts", "1"))
        records = [self.ref.at(0, o) for o in range(count)]
        batches = [records[count * p // parts:count * (p + 1) // parts] for p in range(parts)]
        acked = self.client.produce(self.topic, self.params["codec"], self.params["case"] == "idempotent", batches)
        if acked is not None and acked != list(range(count)):
            fail(f"acked offsets {acked}")
        self.ref.check_run(self.read(None, count), 0, 0, count)

    idempotent = produce

    def start(self):
        self.ref.check_run(self.read(None, self.num("count")), 0, 0, self.num("count"))

    def timestamp(self):
        for want in self.offsets():
            for before in (500, 0):
                got = self.client.offset_at(self.topic, self.ref.time(want) - before)
                if got != want:
                    fail(f"offset for time of record {want} less {before} ms: {got}")
            self.ref.check_run(self.read(want, 3), 0, want, 3)
        got = self.client.offset_at(self.topic, self.ref.time(self.num("count")))
        if got is not None:
            fail(f"offset for a time after the end: {got}, want none")

    def midbatch(self):
        for start in self.offsets():
            self.ref.check_run(self.read(start, 3), 0, start, 3)

    def commit(self):
        marks = [0, self.num("first"), self.num("count")]
        for start, end in zip(marks, marks[1:]):
            member = self.client.join(self.group, self.topic)
            try:
                got = []
                while len(got) < end - start:
                    self.in_time(f"member from {start} got {len(got)} records")
                    got += member.poll()
                self.ref.check_run(got[:end - start], 0, start, end - start)
                member.commit({0: end})
            finally:
                member.close()
            at = self.client.committed(self.group, self.topic)
            if at != end:
                fail(f"committed offset {at}, want {end}")

    def group_case(self):
        count = self.num("partitions")
        self.next = {p: 0 for p in range(count)}
        a = self.client.join(self.group, self.topic)
        try:
            self.settle(count, [a])
            b = self.client.join(self.group, self.topic)
            try:
                self.settle(count, [a, b])
                self.exchange(count, [a, b])
            finally:
                b.close()
            self.settle(count, [a])
            self.exchange(count, [a])
        finally:
            a.close()

    def settle(self, count, members):
        while True:
            for m in members:
                if m.poll():
                    fail("records while settling")
            shares = [sorted(m.assignment()) for m in members]
            if all(len(s) == count // len(members) for s in shares) and sorted(sum(shares, [])) == list(range(count)):
                return
            self.in_time(f"shares {shares} of {count} partitions")

    def exchange(self, count, members, each=5):
        records = [self.ref.at(p, self.next[p] + i) for p in range(count) for i in range(each)]
        self.client.produce(self.topic, "none", False, [records])
        got = 0
        while got < count * each:
            self.in_time(f"got {got} of {count * each} records")
            for i, m in enumerate(members):
                for r in m.poll():
                    if r.partition not in m.assignment():
                        fail(f"member {i} got a record of partition {r.partition}, holds {m.assignment()}")
                    if r.offset != self.next[r.partition]:
                        fail(f"member {i} got {r.partition}:{r.offset}, want offset {self.next[r.partition]}")
                    self.ref.check(r)
                    self.next[r.partition] += 1
                    got += 1
        for m in members:
            m.commit({p: self.next[p] for p in m.assignment()})

    def admin(self):
        a = self.client.admin()
        try:
            self.admin_topics(a)
            a.delete_records(self.params["trim"], self.num("before")) if a.has("delete_records") else None
            self.admin_group(a)
            a.delete_topic(self.topic)
            self.await_partitions(a, None)
        finally:
            a.close()

    def admin_topics(self, a):
        if a.brokers() < 1:
            fail("cluster without brokers")
        a.create_topic(self.topic, 3, {"retention.ms": "12345678"})
        if not a.create_fails_with_exists(self.topic):
            fail("creating a topic twice did not fail with topic exists")
        self.await_partitions(a, 3)
        self.want_config(a, "12345678")
        if a.has("set_config"):
            a.set_config(self.topic, "retention.ms", "23456789")
            self.want_config(a, "23456789")
        a.add_partitions(self.topic, 5)
        self.await_partitions(a, 5)

    def admin_group(self, a):
        if self.group not in a.groups():
            fail("group is not listed")
        if a.group_state(self.group) != "Empty":
            fail(f"group is {a.group_state(self.group)}, want Empty")
        if a.has("delete_group"):
            a.delete_group(self.group)
            if self.group in a.groups():
                fail("deleted group is listed")

    def await_partitions(self, a, want):
        """Waits up to five seconds until the topic has so many partitions with leaders; None: it is gone."""
        got = self.poll_until(want, lambda: a.partitions(self.topic))
        if got != want:
            fail(f"topic has {got} partitions with leaders, want {want}")

    def want_config(self, a, want):
        got = self.poll_until(want, lambda: a.config(self.topic, "retention.ms"))
        if got != want:
            fail(f"retention.ms is {got}, want {want}")

    @staticmethod
    def poll_until(want, ask):
        got = None
        for _ in range(50):
            got = ask()
            if got == want:
                break
            time.sleep(0.1)
        return got


def run(client_class, params):
    client = client_class(params["bootstrap"])
    try:
        case = Case(client, params)
        {"group": case.group_case}.get(params["case"], getattr(case, params["case"], None))()
    finally:
        client.close()


def main():
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the protocol alone writes to standard output
    module = importlib.import_module(MODULES[sys.argv[1]])
    print(f"hello\t{module.VERSION}", file=out)
    for line in sys.stdin:
        params = dict(field.split("=", 1) for field in line.rstrip("\n").split("\t"))
        try:
            run(module.Client, params)
            answer = "pass\t"
        except BaseException as e:
            traceback.print_exc()
            answer = "fail\t" + " ".join(f"{type(e).__name__}: {e}".split())
        print("done\t" + answer, file=out)


if __name__ == "__main__":
    main()
