"""kafka-python: pure Python."""

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata

from reference import Record, fail

VERSION = kafka.__version__


class Client:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap

    def close(self):
        pass

    def produce(self, topic, codec, idempotent, batches):
        p = KafkaProducer(bootstrap_servers=self.bootstrap, compression_type=None if codec == "none" else codec,
                          enable_idempotence=idempotent, acks="all", linger_ms=50)
        sent = []
        try:
            for batch in batches:
                for r in batch:
                    sent.append(p.send(topic, value=r.value, key=r.key, headers=r.headers, partition=r.partition, timestamp_ms=r.timestamp))
                p.flush(timeout=20)
            acked = [f.get(timeout=10).offset for f in sent]
        finally:
            p.close()
        return acked if len({r.partition for b in batches for r in b}) == 1 else None

    def consumer(self, group=None):
        return KafkaConsumer(bootstrap_servers=self.bootstrap, group_id=group, enable_auto_commit=False, auto_offset_reset="earliest",
                             heartbeat_interval_ms=300, fetch_max_wait_ms=250)

    def reader(self, topic, partition, start):
        c = self.consumer()
        tp = TopicPartition(topic, partition)
        c.assign([tp])
        c.seek_to_beginning(tp) if start is None else c.seek(tp, start)
        return Member(c, topic)

    def offset_at(self, topic, ms):
        c = self.consumer()
        try:
            tp = TopicPartition(topic, 0)
            at = c.offsets_for_times({tp: ms})[tp]
            return at.offset if at else None
        finally:
            c.close()

    def committed(self, group, topic):
        c = self.consumer(group)
        try:
            return c.committed(TopicPartition(topic, 0))
        finally:
            c.close()

    def join(self, group, topic):
        c = self.consumer(group)
        c.subscribe([topic])
        return Member(c, topic)

    def admin(self):
        return Admin(self.bootstrap)


class Member:
    def __init__(self, consumer, topic):
        self.c = consumer
        self.topic = topic

    def poll(self):
        out = []
        for records in self.c.poll(timeout_ms=100).values():
            out += [Record(r.partition, r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in records]
        return out

    def assignment(self):
        return [tp.partition for tp in self.c.assignment()]

    def commit(self, offsets):
        self.c.commit({TopicPartition(self.topic, p): OffsetAndMetadata(o, "", -1) for p, o in offsets.items()})

    def close(self):
        self.c.close()


class Admin:
    def __init__(self, bootstrap):
        self.a = KafkaAdminClient(bootstrap_servers=bootstrap)

    def has(self, _):
        return True

    def close(self):
        self.a.close()

    def brokers(self):
        return len(self.a.describe_cluster()["brokers"])

    def create_topic(self, topic, partitions, configs):
        self.a.create_topics({topic: {"num_partitions": partitions, "replication_factor": 1, "configs": configs}})

    def create_fails_with_exists(self, topic):
        try:
            self.create_topic(topic, 3, {})
        except TopicAlreadyExistsError:
            return True
        return False

    def delete_topic(self, topic):
        self.a.delete_topics([topic])

    def partitions(self, topic):
        if topic not in self.a.list_topics():
            return None
        t = self.a.describe_topics([topic])[0]
        return sum(1 for p in t["partitions"] if p["error_code"] == 0 and p["leader_id"] >= 0)

    def add_partitions(self, topic, total):
        self.a.create_partitions({topic: total})

    def config(self, topic, key):
        got = self.a.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return got["topic"][topic].get(key, {}).get("value")

    def set_config(self, topic, key, value):
        self.a.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {key: value})])

    def delete_records(self, topic, before):
        got = self.a.delete_records({TopicPartition(topic, 0): before})
        if got[TopicPartition(topic, 0)]["low_watermark"] != before:
            fail(f"delete records: {got}")

    def groups(self):
        return [g["group_id"] for g in self.a.list_groups()]

    def group_state(self, group):
        return self.a.describe_groups([group])[group]["group_state"]

    def delete_group(self, group):
        got = self.a.delete_groups([group])
        if any(v not in ("OK", None) and "NoError" not in str(v) for v in dict(got).values()):
            fail(f"delete group: {got}")
