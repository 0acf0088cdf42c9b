"""aiokafka: asyncio. Its loop runs in a thread of its own; every call waits for a coroutine there."""

import asyncio
import threading

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from reference import Record, fail

VERSION = aiokafka.__version__

loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()


def wait(coroutine):
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)


async def make(kind, *args, **kwargs):
    """The constructors look for the running loop."""
    made = kind(*args, **kwargs)
    try:
        await made.start()
    except BaseException:
        if hasattr(made, "stop"):
            await made.stop()
        raise
    return made


class Client:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap

    def close(self):
        pass

    def produce(self, topic, codec, idempotent, batches):
        async def go():
            p = await make(AIOKafkaProducer, bootstrap_servers=self.bootstrap, compression_type=None if codec == "none" else codec,
                           enable_idempotence=idempotent, acks="all", linger_ms=50)
            acked = []
            try:
                for batch in batches:
                    sent = [await p.send(topic, value=r.value, key=r.key, partition=r.partition, timestamp_ms=r.timestamp, headers=r.headers)
                            for r in batch]
                    acked += [(await f).offset for f in sent]
            finally:
                await p.stop()
            return acked

        acked = wait(go())
        return acked if len({r.partition for b in batches for r in b}) == 1 else None

    def consumer(self, *topics, group=None):
        return wait(make(AIOKafkaConsumer, *topics, bootstrap_servers=self.bootstrap, group_id=group, enable_auto_commit=False,
                         auto_offset_reset="earliest", heartbeat_interval_ms=300, fetch_max_wait_ms=250))

    def reader(self, topic, partition, start):
        c = self.consumer()
        tp = TopicPartition(topic, partition)

        async def go():
            c.assign([tp])
            if start is None:
                await c.seek_to_beginning(tp)
            else:
                c.seek(tp, start)

        wait(go())
        return Member(c, topic)

    def offset_at(self, topic, ms):
        c = self.consumer()
        try:
            tp = TopicPartition(topic, 0)
            at = wait(c.offsets_for_times({tp: ms}))[tp]
            return at.offset if at else None
        finally:
            wait(c.stop())

    def committed(self, group, topic):
        a = Admin(self.bootstrap)
        try:
            return wait(a.a.list_consumer_group_offsets(group))[TopicPartition(topic, 0)].offset
        finally:
            a.close()

    def join(self, group, topic):
        return Member(self.consumer(topic, group=group), topic)

    def admin(self):
        return Admin(self.bootstrap)


class Member:
    def __init__(self, consumer, topic):
        self.c = consumer
        self.topic = topic

    def poll(self):
        out = []
        for records in wait(self.c.getmany(timeout_ms=100)).values():
            out += [Record(r.partition, r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in records]
        return out

    def assignment(self):
        return [tp.partition for tp in self.c.assignment()]

    def commit(self, offsets):
        wait(self.c.commit({TopicPartition(self.topic, p): o for p, o in offsets.items()}))

    def close(self):
        wait(self.c.stop())


def error_of(response):
    """The first error code of a topic-by-topic answer: 0 if all went well."""
    for entry in getattr(response, "topic_errors", None) or getattr(response, "topic_error_codes"):
        if entry[1]:
            return entry[1]
    return 0


class Admin:
    def __init__(self, bootstrap):
        self.a = wait(make(AIOKafkaAdminClient, bootstrap_servers=bootstrap))

    def has(self, what):
        # There is no call to delete a group; alter_configs is the old, not incremental, one.
        return what != "delete_group"

    def close(self):
        wait(self.a.close())

    def brokers(self):
        return len(wait(self.a.describe_cluster())["brokers"])

    def create(self, topic, partitions, configs):
        return error_of(wait(self.a.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])))

    def create_topic(self, topic, partitions, configs):
        code = self.create(topic, partitions, configs)
        if code:
            fail(f"create topic: error {code}")

    def create_fails_with_exists(self, topic):
        return self.create(topic, 3, {}) == 36

    def delete_topic(self, topic):
        code = error_of(wait(self.a.delete_topics([topic])))
        if code:
            fail(f"delete topic: error {code}")

    def partitions(self, topic):
        if topic not in wait(self.a.list_topics()):
            return None
        t = wait(self.a.describe_topics([topic]))[0]
        return sum(1 for p in t["partitions"] if p["error_code"] == 0 and p["leader"] >= 0)

    def add_partitions(self, topic, total):
        code = error_of(wait(self.a.create_partitions({topic: NewPartitions(total)})))
        if code:
            fail(f"create partitions: error {code}")

    def config(self, topic, key):
        for response in wait(self.a.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])):
            for resource in response.resources:
                for entry in resource[4]:
                    if entry[0] == key:
                        return entry[1]
        return None

    def set_config(self, topic, key, value):
        for response in wait(self.a.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {key: value})])):
            for resource in response.resources:
                if resource[0]:
                    fail(f"alter configs: {resource}")

    def delete_records(self, topic, before):
        tp = TopicPartition(topic, 0)
        got = wait(self.a.delete_records({tp: RecordsToDelete(before)}))
        if got[tp] != before:
            fail(f"delete records: {got}")

    def groups(self):
        return [g[0] for g in wait(self.a.list_consumer_groups())]

    def group_state(self, group):
        for response in wait(self.a.describe_consumer_groups([group])):
            for g in response.groups:
                return g[2]
        return None
