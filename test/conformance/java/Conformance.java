import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Runs the conformance cases with the Java client that is on the class path, from 2.4 on. It reads
 * one case a line and answers one line; ../README.md describes the lines. Calls that were renamed
 * between versions are found by name.
 */
public final class Conformance {
  private static final int PER_PARTITION = 1000;

  private final Map<String, String> p;
  private final String topic;
  private final String group;
  private final long deadline;

  private Conformance(Map<String, String> params) {
    p = params;
    topic = p.get("topic");
    group = p.get("group");
    deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(num("seconds"));
  }

  public static void main(String[] args) throws Exception {
    PrintStream out = System.out;
    System.setOut(System.err); // the protocol alone writes to standard output
    Properties about = new Properties();
    try (InputStream in = KafkaConsumer.class.getResourceAsStream("/kafka/kafka-version.properties")) {
      about.load(in);
    }
    out.println("hello\t" + about.getProperty("version"));
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line; (line = in.readLine()) != null; ) {
      Map<String, String> params = new HashMap<>();
      for (String field : line.split("\t")) {
        int eq = field.indexOf('=');
        params.put(field.substring(0, eq), field.substring(eq + 1));
      }
      String answer;
      try {
        new Conformance(params).run();
        answer = "pass\t";
      } catch (Throwable t) {
        t.printStackTrace();
        answer = "fail\t" + t.toString().replace('\n', ' ').replace('\t', ' ');
      }
      out.println("done\t" + answer);
      out.flush();
    }
    System.exit(0);
  }

  private void run() throws Exception {
    switch (p.get("case")) {
      case "admin": admin(); break;
      case "produce": produceAndRead(false); break;
      case "idempotent": produceAndRead(true); break;
      case "start": start(); break;
      case "timestamp": timestamp(); break;
      case "midbatch": midbatch(); break;
      case "group": group(); break;
      case "commit": commit(); break;
      default: throw new IllegalArgumentException("unknown case " + p.get("case"));
    }
  }

  // ---- reference records ----

  private long num(String key) { return Long.parseLong(p.get(key)); }

  private long time(long i) { return num("timebase") + 1000 * i; }

  private byte[] value(long i) {
    if (i % 10 == 9) return null;
    StringBuilder s = new StringBuilder(p.get("salt")).append('-').append(i).append('-');
    for (long k = 0; k < i % 8; k++) s.append("abcdefghij");
    return s.toString().getBytes(StandardCharsets.UTF_8);
  }

  private static byte[] text(String s) { return s.getBytes(StandardCharsets.UTF_8); }

  private static Header[] headers(long i) {
    return new Header[] {
      new RecordHeader("idx", text(Long.toString(i))),
      new RecordHeader("bin", new byte[] {(byte) 0xff, (byte) 0xfe, 1}),
      new RecordHeader("empty", new byte[0])
    };
  }

  private void check(ConsumerRecord<byte[], byte[]> r) {
    long i = (long) r.partition() * PER_PARTITION + r.offset();
    String where = "record " + r.partition() + ":" + r.offset() + ": ";
    require(Arrays.equals(r.key(), text("key-" + i)), where + "key " + show(r.key()));
    require(Arrays.equals(r.value(), value(i)), where + "value " + show(r.value()) + ", want " + show(value(i)));
    require(r.timestamp() == time(i), where + "timestamp " + r.timestamp() + ", want " + time(i));
    require(Arrays.equals(r.headers().toArray(), headers(i)), where + "headers " + r.headers());
  }

  private void checkRun(List<ConsumerRecord<byte[], byte[]>> got, long from, long n) {
    for (int i = 0; i < got.size(); i++) {
      require(got.get(i).offset() == from + i, "record number " + i + " has offset " + got.get(i).offset() + ", want " + (from + i));
      check(got.get(i));
    }
    require(got.size() == n, got.size() + " records from offset " + from + " on, want " + n);
  }

  private static String show(byte[] b) { return b == null ? "null" : new String(b, StandardCharsets.UTF_8); }

  private static void require(boolean ok, String what) {
    if (!ok) throw new IllegalStateException(what);
  }

  private void inTime(String what) {
    require(System.nanoTime() < deadline, "time is up: " + what);
  }

  // ---- clients ----

  private KafkaConsumer<byte[], byte[]> consumer(String groupId) {
    Properties c = new Properties();
    c.put("bootstrap.servers", p.get("bootstrap"));
    c.put("key.deserializer", ByteArrayDeserializer.class.getName());
    c.put("value.deserializer", ByteArrayDeserializer.class.getName());
    c.put("enable.auto.commit", "false");
    c.put("auto.offset.reset", "earliest");
    c.put("fetch.max.wait.ms", "250");
    c.put("heartbeat.interval.ms", "300");
    if (groupId != null) c.put("group.id", groupId);
    return new KafkaConsumer<>(c);
  }

  /** Writes the records of the given offsets in parts, with a flush after each. */
  private void produce(int partitions, long from, long to, int parts, String codec, boolean idempotent) throws Exception {
    Properties c = new Properties();
    c.put("bootstrap.servers", p.get("bootstrap"));
    c.put("key.serializer", ByteArraySerializer.class.getName());
    c.put("value.serializer", ByteArraySerializer.class.getName());
    c.put("compression.type", codec);
    c.put("linger.ms", "50");
    c.put("acks", "all");
    c.put("enable.idempotence", Boolean.toString(idempotent));
    List<Future<RecordMetadata>> sent = new ArrayList<>();
    try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(c)) {
      for (int part = 0; part < parts; part++) {
        for (long o = from + (to - from) * part / parts; o < from + (to - from) * (part + 1) / parts; o++) {
          for (int q = 0; q < partitions; q++) {
            long i = (long) q * PER_PARTITION + o;
            sent.add(producer.send(new ProducerRecord<>(topic, q, time(i), text("key-" + i), value(i), Arrays.asList(headers(i)))));
          }
        }
        producer.flush();
      }
      for (int i = 0; i < sent.size(); i++) {
        RecordMetadata m = sent.get(i).get(10, TimeUnit.SECONDS);
        require(m.offset() == from + i / partitions, "acked offset " + m.offset() + " for record " + i + ", want " + (from + i / partitions));
      }
    }
  }

  private List<ConsumerRecord<byte[], byte[]>> read(long from, int n) {
    TopicPartition tp = new TopicPartition(topic, 0);
    List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
    try (KafkaConsumer<byte[], byte[]> c = consumer(null)) {
      c.assign(Collections.singleton(tp));
      if (from < 0) c.seekToBeginning(Collections.singleton(tp)); else c.seek(tp, from);
      while (got.size() < n) {
        inTime(got.size() + " of " + n + " records from " + from);
        c.poll(Duration.ofMillis(200)).forEach(got::add);
      }
    }
    return got.subList(0, n);
  }

  // ---- cases ----

  private void produceAndRead(boolean idempotent) throws Exception {
    int n = (int) num("count");
    produce(1, 0, n, idempotent ? (int) num("parts") : 1, p.get("codec"), idempotent);
    checkRun(read(-2, n), 0, n);
  }

  private void start() {
    int n = (int) num("count");
    checkRun(read(-2, n), 0, n);
  }

  private List<Long> offsets() {
    List<Long> out = new ArrayList<>();
    for (String s : p.get("offsets").split(",")) out.add(Long.parseLong(s));
    return out;
  }

  private void timestamp() {
    TopicPartition tp = new TopicPartition(topic, 0);
    try (KafkaConsumer<byte[], byte[]> c = consumer(null)) {
      for (long want : offsets()) {
        for (long before : new long[] {500, 0}) {
          OffsetAndTimestamp at = c.offsetsForTimes(Collections.singletonMap(tp, time(want) - before)).get(tp);
          require(at != null && at.offset() == want && at.timestamp() == time(want),
              "offset for time of record " + want + " less " + before + " ms: " + at);
        }
        checkRun(read(want, 3), want, 3);
      }
      OffsetAndTimestamp after = c.offsetsForTimes(Collections.singletonMap(tp, time(num("count")))).get(tp);
      require(after == null, "offset for a time after the end: " + after);
      require(c.endOffsets(Collections.singleton(tp)).get(tp) == num("count"), "end offset " + c.endOffsets(Collections.singleton(tp)));
      require(c.beginningOffsets(Collections.singleton(tp)).get(tp) == 0, "beginning offset " + c.beginningOffsets(Collections.singleton(tp)));
    }
  }

  private void midbatch() {
    for (long from : offsets()) checkRun(read(from, 3), from, 3);
  }

  private void commit() {
    TopicPartition tp = new TopicPartition(topic, 0);
    long[] marks = {0, num("first"), num("count")};
    for (int m = 0; m < 2; m++) {
      try (KafkaConsumer<byte[], byte[]> c = consumer(group)) {
        c.subscribe(Collections.singleton(topic));
        List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
        while (got.size() < marks[m + 1] - marks[m]) {
          inTime("member " + m + " got " + got.size() + " records");
          c.poll(Duration.ofMillis(200)).forEach(got::add);
        }
        long n = marks[m + 1] - marks[m];
        checkRun(got.subList(0, (int) n), marks[m], n);
        c.commitSync(Collections.singletonMap(tp, new OffsetAndMetadata(marks[m + 1], "meta-" + m)));
        OffsetAndMetadata at = c.committed(Collections.singleton(tp)).get(tp);
        require(at != null && at.offset() == marks[m + 1] && at.metadata().equals("meta-" + m), "committed " + at + ", want " + marks[m + 1]);
      }
    }
  }

  // ---- group ----

  private final long[] next = new long[16]; // next offset wanted, by partition

  private void group() throws Exception {
    int n = (int) num("partitions");
    try (KafkaConsumer<byte[], byte[]> a = consumer(group)) {
      a.subscribe(Collections.singleton(topic));
      settle(n, Collections.singletonList(a));
      try (KafkaConsumer<byte[], byte[]> b = consumer(group)) {
        b.subscribe(Collections.singleton(topic));
        settle(n, Arrays.asList(a, b));
        exchange(n, Arrays.asList(a, b));
      }
      settle(n, Collections.singletonList(a));
      exchange(n, Collections.singletonList(a));
    }
  }

  private void settle(int n, List<KafkaConsumer<byte[], byte[]>> members) {
    while (true) {
      Set<TopicPartition> all = new HashSet<>();
      boolean even = true;
      List<Object> shares = new ArrayList<>();
      for (KafkaConsumer<byte[], byte[]> m : members) {
        require(m.poll(Duration.ofMillis(100)).isEmpty(), "records while settling");
        all.addAll(m.assignment());
        shares.add(m.assignment());
        even &= m.assignment().size() == n / members.size();
      }
      if (even && all.size() == n) return;
      inTime("shares " + shares + " of " + n + " partitions");
    }
  }

  private void exchange(int n, List<KafkaConsumer<byte[], byte[]>> members) throws Exception {
    produce(n, next[0], next[0] + 5, 1, "none", false);
    int got = 0;
    while (got < 5 * n) {
      inTime("got " + got + " of " + 5 * n + " records");
      for (KafkaConsumer<byte[], byte[]> m : members) {
        for (ConsumerRecord<byte[], byte[]> r : m.poll(Duration.ofMillis(100))) {
          require(m.assignment().contains(new TopicPartition(topic, r.partition())), "record of " + r.partition() + ", holds " + m.assignment());
          require(r.offset() == next[r.partition()], "got " + r.partition() + ":" + r.offset() + ", want offset " + next[r.partition()]);
          check(r);
          next[r.partition()]++;
          got++;
        }
      }
    }
    // Not commitSync(): 2.4 leaves out a partition whose position it is about to check against the leader epoch.
    for (KafkaConsumer<byte[], byte[]> m : members) {
      Map<TopicPartition, OffsetAndMetadata> at = new HashMap<>();
      for (TopicPartition tp : m.assignment()) at.put(tp, new OffsetAndMetadata(next[tp.partition()]));
      m.commitSync(at);
    }
  }

  // ---- admin ----

  private static <T> T get(KafkaFuture<T> f) throws Exception {
    try {
      return f.get(20, TimeUnit.SECONDS);
    } catch (ExecutionException e) {
      throw e.getCause() instanceof Exception ? (Exception) e.getCause() : e;
    }
  }

  @SuppressWarnings("unchecked")
  private static <T> T call(Object on, String... names) throws Exception {
    for (String name : names) {
      try {
        return (T) on.getClass().getMethod(name).invoke(on);
      } catch (NoSuchMethodException e) {
        continue; // the other name, of an older or newer version
      }
    }
    throw new NoSuchMethodException(String.join(" or ", names));
  }

  private int partitions(Admin a) throws Exception {
    if (!get(a.listTopics().names()).contains(topic)) return 0;
    Map<String, TopicDescription> all = get((KafkaFuture<Map<String, TopicDescription>>)
        call(a.describeTopics(Collections.singleton(topic)), "allTopicNames", "all"));
    int n = 0;
    for (org.apache.kafka.common.TopicPartitionInfo i : all.get(topic).partitions()) if (i.leader() != null && !i.isr().isEmpty()) n++;
    return n;
  }

  private void awaitPartitions(Admin a, int want) throws Exception {
    Object got = null;
    for (int i = 0; i < 50; i++) {
      try {
        int n = partitions(a);
        if (n == want) return;
        got = n;
      } catch (org.apache.kafka.common.errors.UnknownTopicOrPartitionException e) {
        if (want == 0) return;
        got = e;
      }
      Thread.sleep(100);
    }
    throw new IllegalStateException("topic has " + got + " partitions with leaders, want " + want);
  }

  private void wantConfig(Admin a, String want) throws Exception {
    ConfigResource r = new ConfigResource(ConfigResource.Type.TOPIC, topic);
    ConfigEntry e = null;
    for (int i = 0; i < 50; i++) {
      e = get(a.describeConfigs(Collections.singleton(r)).all()).get(r).get("retention.ms");
      if (e != null && e.value().equals(want) && e.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG) return;
      Thread.sleep(100);
    }
    throw new IllegalStateException("retention.ms is " + e + ", want " + want + " set on the topic");
  }

  private void admin() throws Exception {
    try (Admin a = AdminClient.create(Collections.singletonMap("bootstrap.servers", p.get("bootstrap")))) {
      require(!get(a.describeCluster().nodes()).isEmpty() && get(a.describeCluster().clusterId()) != null, "cluster without nodes or id");
      NewTopic t = new NewTopic(topic, 3, (short) 1).configs(Collections.singletonMap("retention.ms", "12345678"));
      get(a.createTopics(Collections.singleton(t)).all());
      try {
        get(a.createTopics(Collections.singleton(t)).all());
        throw new IllegalStateException("created a topic twice");
      } catch (TopicExistsException e) {
        // as it must be
      }
      awaitPartitions(a, 3);
      wantConfig(a, "12345678");
      ConfigResource r = new ConfigResource(ConfigResource.Type.TOPIC, topic);
      get(a.incrementalAlterConfigs(Collections.singletonMap(r, (Collection<AlterConfigOp>) Collections.singleton(
          new AlterConfigOp(new ConfigEntry("retention.ms", "23456789"), AlterConfigOp.OpType.SET)))).all());
      wantConfig(a, "23456789");
      get(a.createPartitions(Collections.singletonMap(topic, NewPartitions.increaseTo(5))).all());
      awaitPartitions(a, 5);
      TopicPartition trim = new TopicPartition(p.get("trim"), 0);
      long low = get(a.deleteRecords(Collections.singletonMap(trim, RecordsToDelete.beforeOffset(num("before")))).lowWatermarks().get(trim)).lowWatermark();
      require(low == num("before"), "low watermark " + low);
      adminGroup(a);
      require(!get((KafkaFuture<Map<Integer, ?>>) call(a.describeLogDirs(Collections.singleton(get(a.describeCluster().nodes()).iterator().next().id())),
          "allDescriptions", "all")).isEmpty(), "no log dirs");
      get(a.deleteTopics(Collections.singleton(topic)).all());
      awaitPartitions(a, 0);
    }
  }

  private boolean listed(Admin a) throws Exception {
    for (ConsumerGroupListing g : get(a.listConsumerGroups().all())) if (g.groupId().equals(group)) return true;
    return false;
  }

  private void adminGroup(Admin a) throws Exception {
    require(listed(a), "group is not listed");
    ConsumerGroupDescription d = get(a.describeConsumerGroups(Collections.singleton(group)).all()).get(group);
    // The type of the state was renamed between versions; its text was not.
    Object state = call(d, "groupState", "state");
    require(state.toString().equals("Empty") && d.members().isEmpty(), "group is " + state + " with " + d.members());
    Map<TopicPartition, OffsetAndMetadata> at = get(a.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
    require(at.size() == 1 && at.get(new TopicPartition(p.get("trim"), 0)).offset() == 3, "committed " + at);
    get(a.deleteConsumerGroups(Collections.singleton(group)).all());
    require(!listed(a), "deleted group is listed");
  }
}
