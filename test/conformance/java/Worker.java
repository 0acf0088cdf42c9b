import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.*;
import java.util.concurrent.atomic.AtomicLong;
import java.util.zip.CRC32;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * A client under load while brokers are being killed: it reads one line that says what to do, and prints a line of JSON for
 * each operation until its standard input ends. test/cluster/README.md describes the lines.
 */
public final class Worker {
  private static final PrintStream OUT = System.out;
  private static volatile boolean over;

  private final Map<String, String> p;
  private final List<TopicPartition> partitions = new ArrayList<>();
  private final Map<String, Integer> topics = new LinkedHashMap<>();
  private final long patience;

  private Worker(Map<String, String> params) {
    p = params;
    patience = Long.parseLong(p.get("seconds"));
    for (String t : p.get("topics").split(",")) {
      int colon = t.lastIndexOf(':');
      topics.put(t.substring(0, colon), topics.size());
      for (int i = 0; i < Integer.parseInt(t.substring(colon + 1)); i++) partitions.add(new TopicPartition(t.substring(0, colon), i));
    }
  }

  public static void main(String[] args) throws Exception {
    System.setOut(System.err); // the lines alone go to standard output
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    Map<String, String> params = new HashMap<>();
    for (String field : in.readLine().split("\t")) {
      int eq = field.indexOf('=');
      params.put(field.substring(0, eq), field.substring(eq + 1));
    }
    Thread end = new Thread(() -> {
      try {
        while (in.readLine() != null) {}
      } catch (Exception e) {
        e.printStackTrace();
      }
      over = true;
    });
    end.setDaemon(true);
    end.start();
    Worker w = new Worker(params);
    long left = 0;
    switch (params.get("role")) {
      case "produce": left = w.produce(); break;
      case "tail": w.tail(true); break;
      case "reader": w.tail(false); break;
      case "member": w.member(); break;
      default: throw new IllegalArgumentException(params.get("role"));
    }
    say("{\"op\":\"bye\",\"left\":" + left + "}");
    System.exit(0);
  }

  private static void say(String line) {
    synchronized (OUT) {
      OUT.println(line);
      OUT.flush();
    }
  }

  private static long now() { return ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now()); }

  private static String op(String name, long called) {
    return "{\"op\":\"" + name + "\",\"called\":" + called + ",\"returned\":" + now();
  }

  private static String quoted(Throwable t) {
    StringBuilder b = new StringBuilder("\"");
    for (char c : t.toString().toCharArray()) {
      if (c == '"' || c == '\\') b.append('\\');
      b.append(c < ' ' ? ' ' : c);
    }
    return b.append('"').toString();
  }

  private static void trouble(String op, long called, Throwable t) {
    t.printStackTrace();
    say(op(op, called) + ",\"error\":" + quoted(t) + "}");
  }

  private String place(TopicPartition tp) { return topics.get(tp.topic()) + "," + tp.partition(); }

  private Properties settings(Object... more) {
    Properties s = new Properties();
    s.put("bootstrap.servers", p.get("bootstrap"));
    for (int i = 0; i < more.length; i += 2) s.put(more[i], more[i + 1]);
    p.forEach((k, v) -> { if (k.startsWith("set.")) s.put(k.substring(4), v); });
    return s;
  }

  // ---- content: test/load/content.go ----

  private static long sum(ByteBuffer value, byte[] key, Iterable<Header> headers) {
    CRC32 crc = new CRC32();
    long size = value.limit() - 8;
    crc.update(value.array(), 0, 12);
    crc.update(value.array(), 20, value.limit() - 20);
    if (key != null) {
      crc.update(key);
      size += key.length;
    }
    for (Header h : headers) {
      byte[] name = h.key().getBytes(StandardCharsets.UTF_8);
      crc.update(name);
      size += name.length;
      if (h.value() != null) {
        crc.update(h.value());
        size += h.value().length;
      }
    }
    return crc.getValue() << 32 | size;
  }

  private static ProducerRecord<byte[], byte[]> record(TopicPartition tp, int producer, long seq, Random rng) {
    ByteBuffer v = ByteBuffer.allocate(20 + rng.nextInt(400));
    v.putInt(producer).putLong(seq).putLong(0);
    for (int i = 20; i < v.limit(); i += 8) v.put(i, (byte) rng.nextInt());
    byte[] key = seq % 3 == 0 ? ByteBuffer.allocate(8).putLong(seq).array() : null;
    List<Header> headers = seq % 7 == 0
        ? List.of(new RecordHeader("h", Arrays.copyOf(v.array(), 4)), new RecordHeader("empty", (byte[]) null)) : List.of();
    v.putLong(12, sum(v, key, headers));
    return new ProducerRecord<>(tp.topic(), tp.partition(), key, v.array(), headers);
  }

  // ---- roles ----

  private long produce() throws Exception {
    int id = Integer.parseInt(p.get("producer"));
    Random rng = new Random(id);
    long[] next = new long[partitions.size()];
    AtomicLong left = new AtomicLong(), acked = new AtomicLong();
    KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings(), new ByteArraySerializer(), new ByteArraySerializer());
    while (!over) {
      int at = rng.nextInt(partitions.size());
      TopicPartition tp = partitions.get(at);
      for (int n = 1 + rng.nextInt(8); n > 0; n--) {
        long seq = next[at]++;
        ProducerRecord<byte[], byte[]> r = record(tp, id, seq, rng);
        long sum = ByteBuffer.wrap(r.value()).getLong(12);
        left.incrementAndGet();
        long called = now();
        producer.send(r, (done, err) -> {
          long offset = err == null ? done.offset() : 0;
          if (p.get("plant").equals("data") && acked.incrementAndGet() == 50) offset++;
          String line = op("produce", called) + ",\"at\":[" + place(tp) + "," + offset + "," + id + "," + seq + "," + Long.toUnsignedString(sum) + "]";
          say(line + (err == null ? "}" : ",\"error\":" + quoted(err) + "}"));
          left.decrementAndGet();
        });
      }
      Thread.sleep(10);
    }
    producer.close(Duration.ofSeconds(patience));
    return left.get();
  }

  private KafkaConsumer<byte[], byte[]> consumer(Object... more) {
    return new KafkaConsumer<>(settings(more), new ByteArrayDeserializer(), new ByteArrayDeserializer());
  }

  private void poll(KafkaConsumer<byte[], byte[]> c, int assigned, Map<TopicPartition, OffsetAndMetadata> positions) {
    long called = now();
    ConsumerRecords<byte[], byte[]> got;
    try {
      got = c.poll(Duration.ofMillis(200));
    } catch (InvalidOffsetException e) { // LogTruncationException, too
      trouble("vanished", called, e);
      return;
    }
    if (got.isEmpty()) return;
    StringBuilder rows = new StringBuilder(), spoilt = new StringBuilder();
    for (ConsumerRecord<byte[], byte[]> r : got) {
      TopicPartition tp = new TopicPartition(r.topic(), r.partition());
      positions.put(tp, new OffsetAndMetadata(r.offset() + 1));
      ByteBuffer v = ByteBuffer.wrap(r.value() == null ? new byte[0] : r.value());
      if (v.limit() < 20 || v.getLong(12) != sum(v, r.key(), r.headers())) {
        spoilt.append(spoilt.length() > 0 ? "," : "").append("[").append(place(tp)).append(",").append(r.offset()).append("]");
        continue;
      }
      if (p.get("plant").equals("data") && r.offset() == 20) continue;
      rows.append(rows.length() > 0 ? "," : "").append("[").append(place(tp)).append(",").append(r.offset()).append(",").append(v.getInt(0))
          .append(",").append(v.getLong(4)).append(",").append(Long.toUnsignedString(v.getLong(12))).append("]");
    }
    say(op("poll", called) + ",\"assigned\":" + assigned + ",\"records\":[" + rows + "],\"spoilt\":[" + spoilt + "]}");
  }

  private void tail(boolean asks) {
    KafkaConsumer<byte[], byte[]> c = consumer("auto.offset.reset", "none", "enable.auto.commit", "false");
    c.assign(partitions);
    for (TopicPartition tp : partitions) c.seek(tp, 0);
    Map<TopicPartition, OffsetAndMetadata> positions = new HashMap<>();
    for (long asked = 0; !over; ) {
      poll(c, 0, positions);
      if (!asks || now() - asked < 500_000) continue;
      asked = now();
      marks("end", () -> c.endOffsets(partitions, Duration.ofSeconds(10)));
      marks("start", () -> c.beginningOffsets(partitions, Duration.ofSeconds(10)));
    }
  }

  private interface Ask {
    Map<TopicPartition, Long> ask();
  }

  private void marks(String name, Ask ask) {
    long called = now();
    try {
      StringBuilder b = new StringBuilder();
      ask.ask().forEach((tp, o) -> b.append(b.length() > 0 ? "," : "").append("[").append(place(tp)).append(",").append(o).append("]"));
      say(op(name, called) + ",\"marks\":[" + b + "]}");
    } catch (RuntimeException e) {
      trouble("trouble", called, e);
    }
  }

  private void member() {
    KafkaConsumer<byte[], byte[]> c = consumer("group.id", p.get("group"), "auto.offset.reset", "earliest", "enable.auto.commit", "false");
    int[] assigned = {0}, commits = {0};
    c.subscribe(topics.keySet(), new ConsumerRebalanceListener() {
      @Override public void onPartitionsRevoked(Collection<TopicPartition> lost) {}
      @Override public void onPartitionsAssigned(Collection<TopicPartition> got) { assigned[0]++; }
    });
    while (!over) {
      Map<TopicPartition, OffsetAndMetadata> positions = new HashMap<>();
      poll(c, assigned[0], positions);
      if (positions.isEmpty()) continue;
      long called = now();
      String failed = "";
      try {
        c.commitSync(positions, Duration.ofSeconds(10));
      } catch (RuntimeException e) { // a rebalance, or nobody answered: unknown
        e.printStackTrace();
        failed = ",\"error\":" + quoted(e);
      }
      long more = p.get("plant").equals("commit") && ++commits[0] == 5 ? 1_000_000 : 0;
      StringBuilder b = new StringBuilder();
      positions.forEach((tp, o) -> b.append(b.length() > 0 ? "," : "").append("[").append(place(tp)).append(",").append(o.offset() + more).append("]"));
      say(op("commit", called) + ",\"marks\":[" + b + "]" + failed + "}");
    }
    c.close(Duration.ofSeconds(5));
  }
}
