"""confluent-kafka-python: librdkafka underneath."""

import time

import confluent_kafka as ck
from confluent_kafka import admin as cka

from reference import Record, fail

VERSION = f"{ck.__version__}/{ck.libversion()[0]}"


def record(m):
    if m.error():
        raise ck.KafkaException(m.error())
    headers = [(k, v) for k, v in m.headers() or []]
    return Record(m.partition(), m.offset(), m.timestamp()[1], m.key(), m.value(), headers)


class Client:
    def __init__(self, bootstrap):
        self.base = {"bootstrap.servers": bootstrap, "socket.timeout.ms": 20000}

    def close(self):
        pass

    def produce(self, topic, codec, idempotent, batches):
        acked, errors = [], []

        def done(err, m):
            errors.append(err) if err else acked.append(m.offset())

        p = ck.Producer({**self.base, "compression.type": codec, "enable.idempotence": idempotent, "acks": "all", "linger.ms": 50})
        for batch in batches:
            for r in batch:
                p.produce(topic, r.value, r.key, r.partition, on_delivery=done, timestamp=r.timestamp, headers=r.headers)
            if p.flush(20):
                fail("flush timed out")
        if errors:
            raise ck.KafkaException(errors[0])
        return acked if len({r.partition for b in batches for r in b}) == 1 else None

    def consumer(self, group):
        return ck.Consumer({**self.base, "group.id": group, "enable.auto.commit": False, "auto.offset.reset": "earliest",
                            "heartbeat.interval.ms": 300, "fetch.wait.max.ms": 250})

    def reader(self, topic, partition, start):
        c = self.consumer("unused")
        c.assign([ck.TopicPartition(topic, partition, ck.OFFSET_BEGINNING if start is None else start)])
        return Member(c, topic)

    def offset_at(self, topic, ms):
        c = self.consumer("unused")
        try:
            tp = c.offsets_for_times([ck.TopicPartition(topic, 0, ms)], timeout=10)[0]
            if tp.error:
                raise ck.KafkaException(tp.error)
            return None if tp.offset == ck.OFFSET_END else tp.offset
        finally:
            c.close()

    def committed(self, group, topic):
        c = self.consumer(group)
        try:
            return c.committed([ck.TopicPartition(topic, 0)], timeout=10)[0].offset
        finally:
            c.close()

    def join(self, group, topic):
        c = self.consumer(group)
        c.subscribe([topic])
        return Member(c, topic)

    def admin(self):
        return Admin(self.base)


class Member:
    def __init__(self, consumer, topic):
        self.c = consumer
        self.topic = topic

    def poll(self):
        return [record(m) for m in self.c.consume(200, timeout=0.1)]

    def assignment(self):
        return [tp.partition for tp in self.c.assignment()]

    def commit(self, offsets):
        for tp in self.c.commit(offsets=[ck.TopicPartition(self.topic, p, o) for p, o in offsets.items()], asynchronous=False):
            if tp.error:
                raise ck.KafkaException(tp.error)

    def close(self):
        self.c.close()


class Admin:
    def __init__(self, base):
        self.a = cka.AdminClient(base)

    def has(self, _):
        return True

    def close(self):
        pass

    @staticmethod
    def wait(futures):
        return [f.result(20) for f in futures.values()]

    def brokers(self):
        return len(self.a.describe_cluster().result(10).nodes)

    def create_topic(self, topic, partitions, configs):
        self.wait(self.a.create_topics([cka.NewTopic(topic, partitions, 1, config=configs)]))

    def create_fails_with_exists(self, topic):
        try:
            self.create_topic(topic, 3, {})
        except ck.KafkaException as e:
            return e.args[0].code() == ck.KafkaError.TOPIC_ALREADY_EXISTS
        return False

    def delete_topic(self, topic):
        self.wait(self.a.delete_topics([topic]))

    def partitions(self, topic):
        topics = self.a.list_topics(timeout=10).topics
        if topic not in topics:
            return None
        d = self.wait(self.a.describe_topics(ck.TopicCollection([topic])))[0]
        return sum(1 for p in d.partitions if p.leader is not None and p.isr)

    def add_partitions(self, topic, total):
        self.wait(self.a.create_partitions([cka.NewPartitions(topic, total)]))

    def config(self, topic, key):
        got = self.wait(self.a.describe_configs([cka.ConfigResource("topic", topic)]))[0][key]
        if got.source != cka.ConfigSource.DYNAMIC_TOPIC_CONFIG.value:
            fail(f"{key} has source {got.source}, want set on the topic")
        return got.value

    def set_config(self, topic, key, value):
        entry = cka.ConfigEntry(key, value, incremental_operation=cka.AlterConfigOpType.SET)
        self.wait(self.a.incremental_alter_configs([cka.ConfigResource("topic", topic, incremental_configs=[entry])]))

    def delete_records(self, topic, before):
        low = self.wait(self.a.delete_records([ck.TopicPartition(topic, 0, before)]))[0].low_watermark
        if low != before:
            fail(f"low watermark {low}, want {before}")

    def groups(self):
        return [g.group_id for g in self.a.list_consumer_groups().result(10).valid]

    def group_state(self, group):
        return {"EMPTY": "Empty"}.get(self.wait(self.a.describe_consumer_groups([group]))[0].state.name, "other")

    def delete_group(self, group):
        self.wait(self.a.delete_consumer_groups([group]))
