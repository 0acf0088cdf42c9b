"""confluent-kafka-python (librdkafka) under load while brokers are being killed.

It reads one line that says what to do, and prints a line of JSON for each operation until its standard input ends.
test/cluster/README.md describes the lines.
"""

import json
import random
import struct
import sys
import threading
import time
import zlib

import confluent_kafka as ck

OVER = threading.Event()
SAY = threading.Lock()


def say(op, called, **more):
    line = json.dumps({"op": op, "called": called, "returned": now(), **more}, separators=(",", ":"))
    with SAY:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def now():
    return time.time_ns() // 1000


# ---- content: test/load/content.go ----


def checksum(value, key, headers):
    parts = [value[:12], value[20:], key or b""]
    for name, v in headers or []:
        parts += [name.encode(), v or b""]
    data = b"".join(parts)
    return zlib.crc32(data) << 32 | len(data)


def content(producer, seq, rng):
    head = struct.pack(">iq", producer, seq)
    noise = bytearray(rng.randrange(400))
    noise[::8] = rng.randbytes(len(noise[::8]))
    key = struct.pack(">q", seq) if seq % 3 == 0 else None
    headers = [("h", head[:4]), ("empty", None)] if seq % 7 == 0 else []
    total = checksum(head + bytes(8) + noise, key, headers)
    return key, head + struct.pack(">Q", total) + noise, headers, total


# ---- roles ----


class Worker:
    def __init__(self, p):
        self.p = p
        self.plant = p["plant"]
        self.topics, self.partitions = {}, []
        for t in p["topics"].split(","):
            name, n = t.rsplit(":", 1)
            self.topics[name] = len(self.topics)
            self.partitions += [(name, i) for i in range(int(n))]
        self.base = {"bootstrap.servers": p["bootstrap"]}
        self.base.update({k[4:]: v for k, v in p.items() if k.startswith("set.")})

    def produce(self):
        me, rng = int(self.p["producer"]), random.Random(self.p["producer"])
        seqs = dict.fromkeys(self.partitions, 0)
        producer = ck.Producer({**self.base, "enable.idempotence": True})
        acked = 0

        def send(topic, index):
            seq = seqs[topic, index]
            seqs[topic, index] = seq + 1
            key, value, headers, total = content(me, seq, rng)
            called = now()

            def done(err, m):
                nonlocal acked
                acked += 1
                offset = 0 if err else m.offset()
                if self.plant == "data" and acked == 50:
                    offset += 1
                more = {"error": str(err)} if err else {}
                say("produce", called, at=[self.topics[topic], index, offset, me, seq, total], **more)

            while True:
                try:
                    return producer.produce(topic, value, key, index, on_delivery=done, headers=headers)
                except BufferError:
                    producer.poll(0.1)

        while not OVER.is_set():
            topic, index = rng.choice(self.partitions)
            for _ in range(1 + rng.randrange(8)):
                send(topic, index)
            producer.poll(0)
            time.sleep(0.01)
        return producer.flush(float(self.p["seconds"]))

    def consumer(self, **more):
        return ck.Consumer({**self.base, "enable.auto.commit": False, **{k.replace("_", "."): v for k, v in more.items()}})

    def poll(self, c, assigned):
        called = now()
        rows, spoilt, positions = [], [], {}
        for m in c.consume(500, timeout=0.2):
            if err := m.error():
                gone = err.code() in (ck.KafkaError._AUTO_OFFSET_RESET, ck.KafkaError.OFFSET_OUT_OF_RANGE, ck.KafkaError._LOG_TRUNCATION)
                say("vanished" if gone else "trouble", called, error=str(err))
                continue
            at = [self.topics[m.topic()], m.partition(), m.offset()]
            positions[m.topic(), m.partition()] = m.offset() + 1
            v = m.value() or b""
            if len(v) < 20 or struct.unpack(">Q", v[12:20])[0] != checksum(v, m.key(), m.headers()):
                spoilt.append(at)
            elif self.plant != "data" or m.offset() != 20:
                rows.append(at + list(struct.unpack(">iqQ", v[:20])))
        if positions:
            say("poll", called, assigned=assigned, records=rows, spoilt=spoilt)
        return positions

    def tail(self, asks=True):
        c = self.consumer(group_id="unused", auto_offset_reset="error")
        c.assign([ck.TopicPartition(t, i, 0) for t, i in self.partitions])
        asked = 0
        while not OVER.is_set():
            self.poll(c, 0)
            if asks and now() - asked > 500_000:
                asked = now()
                self.marks(c)

    def reader(self):
        self.tail(asks=False)

    def marks(self, c):
        called, starts, ends = now(), [], []
        for t, i in self.partitions:
            if OVER.is_set():
                return
            try:
                low, high = c.get_watermark_offsets(ck.TopicPartition(t, i), timeout=2, cached=False)
            except ck.KafkaException as e:
                say("trouble", called, error=str(e))
                break
            starts.append([self.topics[t], i, low])
            ends.append([self.topics[t], i, high])
        say("start", called, marks=starts)
        say("end", called, marks=ends)

    def member(self):
        assigned = commits = 0

        def got(_consumer, _partitions):
            nonlocal assigned
            assigned += 1

        c = self.consumer(group_id=self.p["group"], auto_offset_reset="earliest")
        c.subscribe(list(self.topics), on_assign=got)
        while not OVER.is_set():
            positions = self.poll(c, assigned)
            if not positions:
                continue
            called, failed = now(), {}
            try:
                for tp in c.commit(offsets=[ck.TopicPartition(t, i, o) for (t, i), o in positions.items()], asynchronous=False):
                    if tp.error:
                        failed = {"error": str(tp.error)}
            except ck.KafkaException as e:  # a rebalance, or nobody answered: unknown
                failed = {"error": str(e)}
            commits += 1
            more = 1_000_000 if self.plant == "commit" and commits == 5 else 0
            say("commit", called, marks=[[self.topics[t], i, o + more] for (t, i), o in positions.items()], **failed)
        c.close()


def ended():
    while sys.stdin.readline():
        pass
    OVER.set()


def main():
    params = dict(f.split("=", 1) for f in sys.stdin.readline().rstrip("\n").split("\t"))
    threading.Thread(target=ended, daemon=True).start()
    left = getattr(Worker(params), params["role"])()
    say("bye", now(), left=left or 0)


main()
