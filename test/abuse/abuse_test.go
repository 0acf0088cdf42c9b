package abuse

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/test/process"
)

const (
	// longForm runs every scenario at its full size.
	longForm = "SKEIN_ABUSE_LONG"
	// rssLimit is what the broker may ever take: its budget for requests and answers (512 MiB), the recent
	// blocks of its log (256 MiB here), and as much again as the Go heap may grow before it is collected.
	rssLimit = 1536 << 20
	// worstService is the longest that an honest client may wait, on a machine with two busy cores that is slow at times. A client
	// that is kept out waits for hanging, or until a peer's patience ends, which is 30 s.
	worstService = 8 * time.Second
	// hanging is how long a scene goes on in which nothing happens to whoever hangs.
	hanging = 2 * worstService
)

// scene is a running broker and an honest client.
type scene struct {
	t    *testing.T
	addr string
	p    *process.Process
	h    *honest
	rng  *rand.Rand
}

// TestAbuse does everything to one broker, one after the other.
func TestAbuse(t *testing.T) {
	raiseLimit(t)
	bin, err := process.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ports, err := process.Ports(2)
	if err != nil {
		t.Fatal(err)
	}
	p, err := process.Broker{Bin: bin, Data: []string{t.TempDir()}, Listen: ports[0], HTTP: ports[1],
		Args: []string{"--set", "skein.log.cache.bytes=268435456"}}.Start(patience)
	if err != nil {
		t.Fatal(err)
	}
	h, err := newHonest(ports[0], "honest")
	if err != nil {
		p.Kill()
		t.Fatal(err)
	}
	s := &scene{addr: ports[0], p: p, h: h, rng: rand.New(rand.NewPCG(1, 2))}
	for _, c := range []struct {
		name string
		run  func(*scene)
	}{
		{"warm-up", (*scene).warmUp},
		{"garbage", (*scene).garbage},
		{"codes", (*scene).codes},
		{"huge-frames", (*scene).hugeFrames},
		{"half-frames", (*scene).halfFrames},
		{"slow-readers", (*scene).slowReaders},
		{"small-requests", (*scene).smallRequests},
		{"churn", (*scene).churn},
		{"idle-connections", (*scene).idleConnections},
	} {
		t.Run(c.name, func(t *testing.T) { s.play(t, c.run) })
	}
	h.close()
	if took, err := p.Stop(patience); err != nil {
		t.Error(err)
	} else {
		t.Logf("exit after SIGTERM in %v", took)
	}
}

// play runs one scenario and looks at broker and honest client.
func (s *scene) play(t *testing.T, run func(*scene)) {
	s.t = t
	s.h.served()
	lines := strings.Count(s.p.Log(), "\n")
	begin := time.Now()
	run(s)
	n, median, worst, err := s.h.served()
	rss, peak, fds, merr := s.p.Memory()
	select {
	case <-s.p.Done():
		t.Fatalf("the broker is gone: %v\n%s", s.p.Err(), s.p.Log())
	default:
	}
	if err != nil || merr != nil {
		t.Errorf("honest client: %v; memory: %v", err, merr)
	}
	if peak > rssLimit {
		t.Errorf("resident memory reached %d MiB, limit %d", peak>>20, rssLimit>>20)
	}
	if worst > worstService {
		t.Errorf("the honest client waited %v", worst)
	}
	t.Logf("%.1f s; honest client: %d records, median %v, worst %v; memory %d MiB, peak %d; %d descriptors; %d lines logged",
		time.Since(begin).Seconds(), n, median.Round(time.Microsecond), worst.Round(time.Millisecond), rss>>20, peak>>20, fds,
		strings.Count(s.p.Log(), "\n")-lines)
	if strings.Contains(s.p.Log(), "panic") {
		t.Fatalf("the broker panicked:\n%s", s.p.Log())
	}
}

// lines counts log lines about closed connections from a mark on.
func (s *scene) lines(from string) int {
	return strings.Count(strings.TrimPrefix(s.p.Log(), from), "close connection")
}

func (s *scene) long() bool { return os.Getenv(longForm) != "" }

// dial opens a connection or ends the test.
func (s *scene) dial() raw {
	s.t.Helper()
	c, err := dial(s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// warmUp makes the topics that the others use.
func (s *scene) warmUp() {
	c := s.dial()
	defer c.Close()
	for _, topic := range []string{"abuse", "big"} {
		rq := kmsg.NewPtrMetadataRequest()
		rq.Version, rq.AllowAutoTopicCreation = 4, true
		m := kmsg.NewMetadataRequestTopic()
		m.Topic = kmsg.StringPtr(topic)
		rq.Topics = append(rq.Topics, m)
		for end := time.Now().Add(patience); ; {
			rs, err := c.ask(rq)
			if err != nil {
				s.t.Fatal(err)
			}
			if ts := rs.(*kmsg.MetadataResponse).Topics; len(ts) == 1 && ts[0].ErrorCode == 0 && len(ts[0].Partitions) > 0 {
				break
			}
			if time.Now().After(end) {
				s.t.Fatalf("topic %s was not created", topic)
			}
		}
	}
}

// garbage: whatever it is, the connection ends and no more than one line is logged for it.
func (s *scene) garbage() {
	before := s.p.Log()
	conns := 0
	try := func(b []byte) {
		conns++
		c := s.dial()
		defer c.Close()
		c.Write(b)
		c.Conn.(interface{ CloseWrite() error }).CloseWrite()
		if err := c.ended(); err != nil {
			s.t.Errorf("after % x: %v", b[:min(len(b), 32)], err)
		}
	}
	for _, text := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "SSH-2.0-x\r\n", "\n\n\n\n", ""} {
		try([]byte(text))
	}
	good := request(7, produce("abuse", 0, batch([]byte("x"))))
	for range 300 {
		b := make([]byte, s.rng.IntN(200))
		for i := range b {
			b[i] = byte(s.rng.Uint32())
		}
		try(b)
		try(frame(b))
		b = bytes.Clone(good) // a good request with a few bytes changed
		for range 1 + s.rng.IntN(4) {
			b[4+s.rng.IntN(len(b)-4)] = byte(s.rng.Uint32())
		}
		try(b)
		key := binary.BigEndian.AppendUint16(nil, uint16(s.rng.IntN(95))) // every API, with a body of noise
		key = binary.BigEndian.AppendUint16(key, uint16(s.rng.IntN(14)))
		noise := make([]byte, s.rng.IntN(300))
		for i := range noise {
			noise[i] = byte(s.rng.Uint32())
		}
		try(frame(append(append(key, 0, 0, 0, 1, 0, 0), noise...)))
	}
	if n := s.lines(before); n == 0 || n > conns {
		s.t.Errorf("%d lines about %d connections", n, conns)
	}
}

// codes: what is wrong inside a sound request is answered with Kafka's code.
func (s *scene) codes() {
	c := s.dial()
	defer c.Close()
	code := func(topic string, partition int32, records []byte) int16 {
		rs, err := c.ask(produce(topic, partition, records))
		if err != nil {
			s.t.Fatalf("produce to %s-%d: %v", topic, partition, err)
		}
		return rs.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
	}
	spoilt := batch([]byte("spoilt"))
	spoilt[len(spoilt)-2] ^= 1
	short := batch([]byte("short"))
	for _, tc := range []struct {
		what  string
		got   int16
		wants int16
	}{
		{"a sound batch", code("abuse", 0, batch([]byte("fine"))), 0},
		{"an unknown topic", code("nobody-made-this", 0, batch([]byte("x"))), 3},
		{"an unknown partition", code("abuse", 1000, batch([]byte("x"))), 3},
		{"a bad crc", code("abuse", 0, spoilt), 2},
		{"half a batch", code("abuse", 0, short[:len(short)-5]), 87},
	} {
		if tc.got != tc.wants {
			s.t.Errorf("%s: code %d, want %d", tc.what, tc.got, tc.wants)
		}
	}
	// An unsupported version of ApiVersions is answered (KIP-511), of anything else the connection ends.
	if _, err := c.Write(frame([]byte{0, 18, 0, 99, 0, 0, 0, 9, 0, 1, 'a', 0})); err != nil {
		s.t.Fatal(err)
	}
	if id, b, err := c.answer(); err != nil || id != 9 || len(b) < 2 || binary.BigEndian.Uint16(b) != 35 {
		s.t.Errorf("ApiVersions v99: %d % x, %v", id, b, err)
	}
	c.Write(frame([]byte{0, 3, 0, 99, 0, 0, 0, 9, 0, 1, 'a', 0}))
	if err := c.ended(); err != nil {
		s.t.Errorf("Metadata v99: %v", err)
	}
}

// hugeFrames: sizes beyond the limit end the connection at once; no memory is taken for a size that is only announced.
func (s *scene) hugeFrames() {
	for _, size := range []uint32{1<<31 - 1, 1 << 31, 1<<32 - 1, 100<<20 + 1} {
		for range 50 {
			c := s.dial()
			c.Write(binary.BigEndian.AppendUint32(nil, size))
			if err := c.ended(); err != nil {
				s.t.Errorf("a frame of %d bytes: %v", size, err)
			}
			c.Close()
		}
	}
}

// halfFrames: many connections that announce a request and stop in the middle.
func (s *scene) halfFrames() {
	var conns []raw
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for i := range 400 {
		c := s.dial()
		conns = append(conns, c)
		size := uint32(1 << 20)
		if i%40 == 0 {
			size = 90 << 20
		}
		c.Write(append(binary.BigEndian.AppendUint32(nil, size), make([]byte, s.rng.IntN(1000))...))
	}
	s.watch(hanging)
}

// watch lets the honest client be served for a while.
func (s *scene) watch(d time.Duration) { time.Sleep(d) }

// slowReaders: connections that ask for much and never read.
func (s *scene) slowReaders() {
	filler := s.dial()
	defer filler.Close()
	value := make([]byte, 900<<10)
	for i := range value {
		value[i] = byte(s.rng.Uint32())
	}
	b := batch(value)
	for range 200 {
		if rs, err := filler.ask(produce("big", 0, b)); err != nil || rs.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode != 0 {
			s.t.Fatalf("fill: %v %v", rs, err)
		}
	}
	var conns []raw
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range 60 {
		c := s.dial()
		conns = append(conns, c)
		for i := range 20 {
			c.Write(request(int32(i), fetch("big", 0)))
		}
	}
	s.watch(hanging)
}

// smallRequests: very many produce requests on a few connections, sent without waiting for answers; each is answered, in
// order, and the offsets of a connection rise.
func (s *scene) smallRequests() {
	total := 200_000
	if s.long() {
		total = 1_000_000
	}
	const conns = 4
	var wg sync.WaitGroup
	for range conns {
		c := s.dial()
		wg.Go(func() {
			rq := produce("abuse", 0, batch([]byte("small")))
			var out []byte
			for i := 0; i < total/conns; {
				for out = out[:0]; len(out) < 32<<10 && i < total/conns; i++ {
					out = append(out, request(int32(i), rq)...)
				}
				if _, err := c.Write(out); err != nil {
					s.t.Errorf("write: %v", err)
					return
				}
			}
		})
		wg.Go(func() {
			defer c.Close()
			last := int64(-1)
			for i := range total / conns {
				id, b, err := c.answer()
				rs := kmsg.NewPtrProduceResponse()
				if rs.Version = 7; err == nil {
					err = rs.ReadFrom(b)
				}
				if err != nil || id != int32(i) {
					s.t.Errorf("answer %d: id %d, %v", i, id, err)
					return
				}
				p := rs.Topics[0].Partitions[0]
				if p.ErrorCode != 0 || p.BaseOffset <= last {
					s.t.Errorf("answer %d: code %d, offset %d after %d", i, p.ErrorCode, p.BaseOffset, last)
					return
				}
				last = p.BaseOffset
			}
		})
	}
	wg.Wait()
}

// churn: connections that come, ask one thing, or nothing, and go; their descriptors come back.
func (s *scene) churn() {
	_, _, before, _ := s.p.Memory()
	n := 2000
	if s.long() {
		n = 20_000
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range n / 8 {
				c, err := dial(s.addr)
				if err != nil {
					s.t.Error(err)
					return
				}
				if (i+w)%2 == 0 {
					if _, err := c.ask(kmsg.NewPtrApiVersionsRequest()); err != nil {
						s.t.Errorf("ApiVersions: %v", err)
					}
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		_, _, now, _ := s.p.Memory()
		if now <= before+20 {
			return
		}
		if time.Now().After(end) {
			s.t.Errorf("%d descriptors, %d before", now, before)
			return
		}
	}
}

// idleConnections: ten thousand of them cost little, and each still works.
func (s *scene) idleConnections() {
	rss, _, _, _ := s.p.Memory()
	const n = 10_000
	conns := make([]raw, 0, n)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range n {
		conns = append(conns, s.dial())
	}
	for i := 0; i < n; i += 100 {
		if _, err := conns[i].ask(kmsg.NewPtrApiVersionsRequest()); err != nil {
			s.t.Errorf("connection %d: %v", i, err)
		}
	}
	now, _, fds, _ := s.p.Memory()
	for end := time.Now().Add(patience); fds < n && time.Now().Before(end); now, _, fds, _ = s.p.Memory() {
		time.Sleep(10 * time.Millisecond) // the kernel has made connections that the broker has not accepted yet
	}
	if grown := max(now-rss, 0); grown > n*20<<10 {
		s.t.Errorf("%d connections take %d KiB each", n, grown/n>>10)
	}
	if fds < n {
		s.t.Errorf("the broker has %d descriptors", fds)
	}
}

// raiseLimit takes all the descriptors that this process may have; the broker inherits them.
func raiseLimit(t *testing.T) {
	var l syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l)
	if err == nil && l.Cur < l.Max {
		l.Cur = l.Max
		err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
	}
	if err != nil || l.Cur < 12_000 {
		t.Skipf("10,000 connections need 12,000 descriptors, the limit is %d (%v)", l.Cur, err)
	}
}
