package bench

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fakeBroker leads what the shared table says and refuses the rest with NOT_LEADER_OR_FOLLOWER.
type fakeBroker struct {
	id    int32
	ln    net.Listener
	world *fakeWorld
}

// fakeWorld is what the fakes agree on.
type fakeWorld struct {
	mu      sync.Mutex
	brokers []*fakeBroker
	leader  []int32 // by partition of topic t-0
	written []int
	silent  int32 // a broker that answers nothing
	hints   bool  // refusals say who leads
	routed  int   // produce requests of routers
	refusal int16 // of those who do not lead; 0: NOT_LEADER_OR_FOLLOWER
}

func newFakeWorld(t *testing.T, brokers, partitions int) *fakeWorld {
	w := &fakeWorld{leader: make([]int32, partitions), written: make([]int, partitions), silent: -1}
	for i := range brokers {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		b := &fakeBroker{id: int32(i), ln: ln, world: w}
		w.brokers = append(w.brokers, b)
		t.Cleanup(func() { ln.Close() })
		go b.serve()
	}
	return w
}

func (w *fakeWorld) seeds() (out []string) {
	for _, b := range w.brokers {
		out = append(out, b.ln.Addr().String())
	}
	return out
}

func (w *fakeWorld) lead(from, to int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, l := range w.leader {
		if l == from {
			w.leader[i] = to
		}
	}
}

func (b *fakeBroker) serve() {
	for {
		c, err := b.ln.Accept()
		if err != nil {
			return
		}
		go b.talk(c)
	}
}

func (b *fakeBroker) talk(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		key, version, correlation := binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:]), body[4:8]
		n := int(binary.BigEndian.Uint16(body[8:]))
		body = body[10+n+1:]
		b.world.mu.Lock()
		silent := b.world.silent == b.id
		if key == 0 && version == routedVersion {
			b.world.routed++
		}
		b.world.mu.Unlock()
		if silent {
			continue
		}
		var rs kmsg.Response
		if key == 0 {
			rs = b.produce(body)
		} else {
			rs = b.metadata()
		}
		out := append([]byte{0, 0, 0, 0}, correlation...)
		out = rs.AppendTo(append(out, 0))
		binary.BigEndian.PutUint32(out, uint32(len(out)-4))
		c.Write(out)
	}
}

func (b *fakeBroker) metadata() kmsg.Response {
	rs := kmsg.NewPtrMetadataResponse()
	rs.Version = 9
	w := b.world
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.brokers {
		host, port, _ := net.SplitHostPort(o.ln.Addr().String())
		n, _ := strconv.Atoi(port)
		mb := kmsg.NewMetadataResponseBroker()
		mb.NodeID, mb.Host, mb.Port = o.id, host, int32(n)
		rs.Brokers = append(rs.Brokers, mb)
	}
	t := kmsg.NewMetadataResponseTopic()
	t.Topic = kmsg.StringPtr("t-0")
	for i, l := range w.leader {
		p := kmsg.NewMetadataResponseTopicPartition()
		p.Partition, p.Leader = int32(i), l
		t.Partitions = append(t.Partitions, p)
	}
	rs.Topics = append(rs.Topics, t)
	return rs
}

func (b *fakeBroker) produce(body []byte) kmsg.Response {
	rq := kmsg.NewPtrProduceRequest()
	rq.Version = routedVersion
	if err := rq.ReadFrom(body); err != nil {
		return kmsg.NewPtrProduceResponse()
	}
	rs := kmsg.NewPtrProduceResponse()
	rs.Version = routedVersion
	w := b.world
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range rq.Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition = p.Partition
			if w.leader[p.Partition] != b.id {
				rp.ErrorCode = cmp.Or(w.refusal, 6)
				if w.hints {
					rp.CurrentLeader.LeaderID, rp.CurrentLeader.LeaderEpoch = w.leader[p.Partition], 1
				}
			} else {
				w.written[p.Partition]++
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		rs.Topics = append(rs.Topics, rt)
	}
	if w.hints {
		for _, o := range w.brokers {
			host, port, _ := net.SplitHostPort(o.ln.Addr().String())
			n, _ := strconv.Atoi(port)
			rs.Brokers = append(rs.Brokers, kmsg.ProduceResponseBroker{NodeID: o.id, Host: host, Port: int32(n)})
		}
	}
	return rs
}

// TestRouterGoesWhereItIsTold: a refusal that says who leads costs no metadata request, and metadata of an older epoch does not undo it.
func TestRouterGoesWhereItIsTold(t *testing.T) {
	w := newFakeWorld(t, 2, 10)
	w.hints = true
	r := newRouter(w.seeds(), Topics{Prefix: "t", Count: 1, Partitions: 10})
	defer r.close()
	r.waits = waits{time.Minute, time.Minute, time.Minute} // what is late on a busy machine costs requests, too
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for n, want := range []int{1, 1} { // asked at the first write only
		refused, err := r.write(ctx, r.all(), encodeBatch(1, 10, time.Now()))
		if err != nil || refused != 1 || r.refreshes != want {
			t.Fatalf("write %d: %d refused, %d metadata requests, %v", n, refused, r.refreshes, err)
		}
		w.lead(0, 1)
	}
	r.mu.Lock()
	r.learn(3, leading{"elsewhere:1", 0})
	now := r.leaders[3]
	r.mu.Unlock()
	if want := w.brokers[1].ln.Addr().String(); now != want {
		t.Errorf("partition 3 is led by %s, want %s", now, want)
	}
}

// TestRouter: leaders move, a broker goes away and another one falls silent; every partition is written all the same.
func TestRouter(t *testing.T) {
	w := newFakeWorld(t, 3, 2500)
	for i := range w.leader {
		w.leader[i] = int32(i % 3)
	}
	r := newRouter(w.seeds(), Topics{Prefix: "t", Count: 1, Partitions: 2500})
	defer r.close()
	r.dial = time.Minute // a try that finds no connection in time counts as refused; no broker here leaves one waiting
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	write := func(what string, wantRefused bool) {
		t.Helper()
		refused, err := r.write(ctx, r.all(), encodeBatch(1, 10, time.Now()))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if (refused > 0) != wantRefused {
			t.Errorf("%s: %d refused", what, refused)
		}
	}
	write("nothing is known yet", true)
	write("at rest", false)
	w.lead(0, 1)
	write("leaders moved", true)
	w.brokers[0].ln.Close()
	w.lead(1, 2)
	write("a broker is gone", true)
	w.lead(2, 1)
	w.mu.Lock()
	w.silent = 2
	w.mu.Unlock()
	write("a broker is silent", true)
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, n := range w.written {
		if n < 5 {
			t.Fatalf("partition %d was written %d times", i, n)
		}
	}
	if routes := r.routes(); len(routes) != 1 || len(routes[0].Partitions) != 2500 {
		t.Errorf("%d routes", len(routes))
	}
}

func TestSumSocketBytes(t *testing.T) {
	text := "0 0 127.0.0.1:19701 127.0.0.1:40000 \n" +
		"\t cubic wscale:7,7 bytes_sent:12 bytes_acked:10 bytes_received:4\n" +
		"0 0 127.0.0.1:40000 127.0.0.1:19701\n" +
		"\t cubic bytes_acked:5\n" +
		"0 0 127.0.0.1:19700 127.0.0.1:40001\n" +
		"\t cubic bytes_acked:1000\n"
	if got := sumSocketBytes(text, []int{19701, 19711}); got != 15 {
		t.Errorf("%d bytes, want 15", got)
	}
}
