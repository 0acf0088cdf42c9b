package cluster

import (
	"bufio"
	"context"
	endian "encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/skeinmq/skein/test/load"
	"github.com/skeinmq/skein/test/process"
)

const (
	redirectTopic      = "redirect"
	redirectPartitions = 2
	redirectOlder      = 10_000 // records of each partition in the first broker's log
	redirectNewer      = 200    // and in each later one
	redirectValue      = 900    // bytes
)

// redirecting is three brokers of which the first has most of a topic, and no group any more; the second one owns all.
// Consumers are sent to the first one.
type redirecting struct {
	t     *testing.T
	c     *Skein
	cl    *kgo.Client
	n     int64 // records in each partition
	owner int
}

func startRedirecting(t *testing.T) *redirecting {
	t.Helper()
	c := skein(t, 3, "--set", "skein.read.redirect=true", "--set", "skein.read.redirect.min.bytes=65536", "--set", "skein.balancer.enabled=false")
	c.started(t, c.StartAll())
	r := &redirecting{t: t, c: c}
	var err error
	// Small batches, and readers that ask for one at a time: a run takes them a while.
	r.cl, err = kgo.NewClient(kgo.SeedBrokers(c.Seeds()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(2200), kgo.ProducerLinger(0), kgo.MetadataMinAge(50*time.Millisecond),
		kgo.UnknownTopicRetries(-1), kgo.AlwaysRetryEOF(), kgo.RecordDeliveryTimeout(settlePatience))
	c.started(t, err)
	t.Cleanup(r.cl.Close)
	c.started(t, createTopic(t.Context(), r.cl, redirectPartitions, 1, redirectTopic))
	begun := time.Now()
	r.move(1)
	r.produce(redirectOlder)
	r.move(2)
	r.produce(redirectNewer)
	t.Logf("%d records of each partition written in %v", r.n, time.Since(begun).Round(time.Millisecond))
	return r
}

// move gives all groups to one broker, and waits until every broker knows: a host that does not sends consumers back.
func (r *redirecting) move(to int) {
	r.t.Helper()
	var said string
	for end := time.Now().Add(settlePatience); !r.knowMove(2, to); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("groups are not moved to broker %d: %s\n%s", to, said, r.c.Logs())
		}
		m, err := readMap(r.t.Context(), r.c.HTTP(2))
		r.c.started(r.t, err)
		at := slices.IndexFunc(m.Logs, func(l logView) bool { return l.Broker == to })
		for _, l := range m.Logs {
			if at >= 0 && l.Broker != to && m.owned()[l.Broker] > 0 {
				said, _ = r.c.quietly(2, "map", "move", "--all", "--from", l.ID, "--to", m.Logs[at].ID)
			}
		}
	}
	for _, id := range []int{1, 3} {
		r.await(fmt.Sprintf("broker %d knows of the move", id), func() bool { return r.knowMove(id, to) })
	}
	r.owner = to
}

// knowMove says whether a broker knows that all groups are another one's.
func (r *redirecting) knowMove(by, to int) bool {
	m, err := readMap(r.t.Context(), r.c.HTTP(by))
	return err == nil && len(m.Groups) > 0 && m.owned()[to] == len(m.Groups)
}

// produce writes so many records to each partition; a record's number is its offset. What they are made of is described in
// test/load/content.go.
func (r *redirecting) produce(n int) {
	r.t.Helper()
	var wrong error
	var mu sync.Mutex
	for range n {
		for p := range int32(redirectPartitions) {
			v := make([]byte, redirectValue)
			endian.BigEndian.PutUint32(v, 1)
			endian.BigEndian.PutUint64(v[4:], uint64(r.n))
			sum := crc32.Update(crc32.ChecksumIEEE(v[:12]), crc32.IEEETable, v[20:])
			endian.BigEndian.PutUint64(v[12:], uint64(sum)<<32|uint64(len(v)-8))
			want := r.n
			r.cl.Produce(r.t.Context(), &kgo.Record{Topic: redirectTopic, Partition: p, Value: v}, func(rec *kgo.Record, err error) {
				if err == nil && rec.Offset != want {
					err = fmt.Errorf("record %d of partition %d is at offset %d", want, rec.Partition, rec.Offset)
				}
				if err != nil {
					mu.Lock()
					wrong = err
					mu.Unlock()
				}
			})
		}
		r.n++
	}
	r.c.started(r.t, r.cl.Flush(r.t.Context()))
	mu.Lock()
	defer mu.Unlock()
	r.c.started(r.t, wrong)
}

// metric reads one of a broker's counters.
func (r *redirecting) metric(id int, name string) float64 {
	r.t.Helper()
	rs, err := http.Get("http://" + r.c.HTTP(id) + "/metrics")
	r.c.started(r.t, err)
	defer rs.Body.Close()
	body, err := io.ReadAll(rs.Body)
	r.c.started(r.t, err)
	for line := range strings.Lines(string(body)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
			r.c.started(r.t, err)
			return n
		}
	}
	r.t.Fatalf("broker %d has no metric %s", id, name)
	return 0
}

// hosted is how many bytes consumers have read at the first broker since it started.
func (r *redirecting) hosted() float64 { return r.metric(1, "skein_broker_hosted_read_bytes_total") }

// reader is a consumer of the whole topic, from 0 on. It judges what it gets: every record once, in order, as it was sent.
type reader struct {
	mu    sync.Mutex
	may   sync.Cond // most has grown
	most  int64     // records that it takes; then it stands still
	next  [redirectPartitions]int64
	wrong []string
	said  strings.Builder
}

func (rd *reader) got(p int32, offset, seq int64) {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	for rd.next[0]+rd.next[1] >= rd.most {
		rd.may.Wait()
	}
	if want := rd.next[p]; offset != want || seq != offset {
		rd.complain(fmt.Sprintf("partition %d: record %d at offset %d, want offset %d", p, seq, offset, want))
	}
	rd.next[p] = offset + 1
}

// let has the reader go on until it has so many records.
func (rd *reader) let(most int64) {
	rd.mu.Lock()
	rd.most = most
	rd.mu.Unlock()
	rd.may.Broadcast()
}

// complain is called with mu held.
func (rd *reader) complain(text string) {
	if len(rd.wrong) < 20 {
		rd.wrong = append(rd.wrong, text)
	}
}

func (rd *reader) Write(b []byte) (int, error) {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	if rd.said.Len() < 256<<10 {
		rd.said.Write(b)
	}
	return len(b), nil
}

// franz reads with franz-go.
func (rd *reader) franz(ctx context.Context, r *redirecting, opts ...kgo.Opt) {
	from := map[int32]kgo.Offset{}
	for p := range int32(redirectPartitions) {
		from[p] = kgo.NewOffset().At(0)
	}
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(r.c.Seeds()...), kgo.Rack("r"), kgo.FetchMaxPartitionBytes(2048), kgo.MetadataMinAge(50*time.Millisecond),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{redirectTopic: from}), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }))...)
	if err != nil {
		fmt.Fprintln(rd, err)
		return
	}
	defer cl.Close()
	for ctx.Err() == nil {
		fs := cl.PollFetches(ctx)
		fs.EachError(func(_ string, _ int32, err error) { fmt.Fprintln(rd, err) })
		fs.EachRecord(func(rec *kgo.Record) {
			rd.got(rec.Partition, rec.Offset, int64(endian.BigEndian.Uint64(rec.Value[4:])))
		})
	}
}

// foreign reads with a program of test/conformance, which says what it was told.
func (rd *reader) foreign(ctx context.Context, r *redirecting, f load.Foreign) {
	cmd := exec.CommandContext(ctx, f.Argv[0], f.Argv[1:]...)
	cmd.Stderr, cmd.SysProcAttr = rd, process.Tied()
	in, err := cmd.StdinPipe()
	if err != nil {
		fmt.Fprintln(rd, err)
		return
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(rd, err)
		return
	}
	order := []string{"role=tail", "bootstrap=" + strings.Join(r.c.Seeds(), ","), fmt.Sprintf("topics=%s:%d", redirectTopic, redirectPartitions),
		"group=unused", "producer=0", "seconds=5", "plant=", "set.client.rack=r", "set.max.partition.fetch.bytes=2048"}
	if f.Name == "librdkafka" { // no more in memory than the others have
		order = append(order, "set.queued.min.messages=500", "set.queued.max.messages.kbytes=1000", "set.fetch.queue.backoff.ms=1")
	}
	fmt.Fprintln(in, strings.Join(order, "\t"))
	lines := bufio.NewReaderSize(out, 1<<16)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var op struct {
			Op      string
			Records [][6]uint64
			Spoilt  [][3]int64
			Error   string
		}
		if err := json.Unmarshal(line, &op); err != nil {
			fmt.Fprintln(rd, err)
		}
		rd.mu.Lock()
		if len(op.Spoilt) > 0 || op.Op == "vanished" {
			rd.complain(fmt.Sprintf("%.200s", line))
		}
		rd.mu.Unlock()
		for _, rec := range op.Records {
			rd.got(int32(rec[1]), int64(rec[2]), int64(rec[4]))
		}
	}
	_ = cmd.Wait() // it was killed
}

// at is how many records it has.
func (rd *reader) at() (n int64) {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	for _, next := range rd.next {
		n += next
	}
	return n
}

// read runs a reader until it has everything; between is called when it has begun to read at the first broker.
func (r *redirecting) read(name string, start func(context.Context, *reader), between func(*reader)) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	rd, done := &reader{}, make(chan struct{})
	rd.may.L = &rd.mu
	go func() {
		defer close(done)
		start(ctx, rd)
	}()
	defer func() {
		cancel()
		rd.let(math.MaxInt64)
		<-done
		if len(rd.wrong) > 0 {
			r.t.Errorf("%s: %s", name, strings.Join(rd.wrong, "\n"))
		}
		if r.t.Failed() {
			r.t.Logf("%s has read to %v\n%s\n%s", name, rd.next, rd.said.String(), r.c.Logs())
		}
	}()
	begun := time.Now()
	if between != nil {
		between(rd)
	}
	rd.let(math.MaxInt64)
	r.await(name+" has read everything", func() bool { return rd.at() >= redirectPartitions*r.n })
	r.t.Logf("%s has everything after %v", name, time.Since(begun).Round(time.Millisecond))
}

func (r *redirecting) await(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(settlePatience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("never happened: %s\n%s", what, r.c.Logs())
		}
	}
}

// readsAtHost awaits that a reader that stands still or begins reads at the host. The host may know less than the client when
// that asks it first, and send it back; then the owner serves it, and tells it once more 5 s later. So the reader goes on
// slowly: 4,000 records go into pipes and buffers, and the client asks when there is room.
func (r *redirecting) readsAtHost(rd *reader) {
	r.t.Helper()
	was, begun, from := r.hosted(), time.Now(), rd.at()
	r.await("it reads at the host", func() bool {
		if gone := time.Since(begun); gone < 10*time.Second {
			rd.let(from + int64(gone/time.Millisecond))
		}
		return r.hosted() > was+200*redirectValue
	})
}

// judge has a client read everything in peace, and then while the partitions move on and the host is killed.
func (r *redirecting) judge(name string, start func(context.Context, *reader)) {
	r.t.Helper()
	older := float64(redirectPartitions * redirectOlder * redirectValue)
	was := r.hosted()
	r.read(name, start, nil)
	hosted := r.hosted() - was
	r.t.Logf("%s: %.0f %% of the older records came from their host", name, 100*hosted/older)
	if hosted < 0.8*older {
		r.t.Errorf("%s: the host served %.0f bytes of %.0f", name, hosted, older)
	}
	r.read(name+" disturbed", start, func(rd *reader) {
		r.readsAtHost(rd)
		r.move(5 - r.owner)
		r.produce(redirectNewer)
		r.readsAtHost(rd)
		r.c.started(r.t, r.c.Kill(1))
		rd.let(math.MaxInt64)
		r.c.started(r.t, r.c.Start(1))
		r.await("the host is of use again", func() bool { return rd.at() > redirectPartitions*redirectOlder-500 }) // further than pipes and buffers go
		r.t.Logf("%s: %.0f bytes from the host since it is back", name, r.hosted())                                // none if the client did not know it as yet
	})
}

// TestRedirect: a consumer is sent to the broker that has the older records, reads them there, and comes back, in peace and while
// partitions move and that broker is killed: every record once and in order.
func TestRedirect(t *testing.T) {
	r := startRedirecting(t)
	was := r.hosted()
	r.read("franz-go with Fetch v10", func(ctx context.Context, rd *reader) { rd.franz(ctx, r, kgo.MaxVersions(kversion.V2_2_0())) }, nil)
	if now := r.hosted(); now != was {
		t.Errorf("a client that cannot be redirected read %v bytes at the host", now-was)
	}
	r.judge("franz-go", func(ctx context.Context, rd *reader) { rd.franz(ctx, r) })
}

// TestForeignRedirect is TestRedirect with Java and librdkafka.
func TestForeignRedirect(t *testing.T) {
	list := foreignClients(t)
	r := startRedirecting(t)
	slices.Reverse(list)
	for _, f := range list {
		r.judge(f.Name, func(ctx context.Context, rd *reader) { rd.foreign(ctx, r, f) })
	}
}

// TestRedirectOwnerKilled kills the owner instead, while its consumers read at the host: a survivor takes over, which may be the
// host itself.
func TestRedirectOwnerKilled(t *testing.T) {
	thorough(t)
	readers := map[string]func(context.Context, *redirecting, *reader){
		"franz-go": func(ctx context.Context, r *redirecting, rd *reader) { rd.franz(ctx, r) },
	}
	if os.Getenv(envForeign) != "" {
		for _, f := range foreignClients(t) {
			readers[f.Name] = func(ctx context.Context, r *redirecting, rd *reader) { rd.foreign(ctx, r, f) }
		}
	}
	for name, start := range readers {
		t.Run(name, func(t *testing.T) {
			r := startRedirecting(t)
			r.read(name, func(ctx context.Context, rd *reader) { start(ctx, r, rd) }, func(rd *reader) {
				rd.let(2000)
				r.await("it reads at the host", func() bool { return rd.at() >= 2000 && r.hosted() > 0 })
				r.c.started(t, r.c.Kill(r.owner))
				rd.let(4500)
				r.produce(redirectNewer)
				r.await("it goes on", func() bool { return rd.at() >= 4500 })
				r.c.started(t, r.c.Start(r.owner))
			})
		})
	}
}
