package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

// patience ends a wait for what never comes; nothing is measured by it.
const patience = time.Minute

// calm is raft's timeout in these tests: no controller is deposed because the machine stood still for a moment.
const calm = 3 * time.Second

// wires are the connections between the brokers of a test, which it can cut.
type wires struct {
	mu    sync.Mutex
	cut   map[ident.Broker]bool
	conns map[net.Conn][2]ident.Broker
}

func (w *wires) dial(ctx context.Context, from, to ident.Broker, addr string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if from != to && (w.cut[from] || w.cut[to]) { // perhaps while it was dialed
		c.Close()
		return nil, errors.New("the wire is cut")
	}
	w.conns[c] = [2]ident.Broker{from, to}
	return c, nil
}

// sever cuts a broker off from all others, mend ends that.
func (w *wires) sever(b ident.Broker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[b] = true
	for c, ends := range w.conns {
		if ends[0] != ends[1] && slices.Contains(ends[:], b) {
			c.Close()
			delete(w.conns, c)
		}
	}
}

func (w *wires) mend(b ident.Broker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.cut, b)
}

// layer carries raft's streams of one broker.
type layer struct {
	net.Listener
	w    *wires
	self ident.Broker
	of   func(addr string) ident.Broker
}

func (l *layer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return l.w.dial(ctx, l.self, l.of(string(addr)), string(addr))
}

// member is one broker of a test.
type member struct {
	*Controller
	c     *cluster
	id    ident.Broker
	dir   string
	cfg   Config
	ended chan error
	stop  context.CancelFunc
	rpc   *grpc.Server
}

// cluster is several brokers in this process, over TCP.
type cluster struct {
	t       testing.TB
	w       *wires
	mu      sync.Mutex
	raftAt  map[ident.Broker]string
	grpcAt  map[ident.Broker]string
	members map[ident.Broker]*member
	voters  []Member
}

// Conn implements Conns for one broker.
type linesOf struct {
	c     *cluster
	self  ident.Broker
	mu    sync.Mutex
	conns map[ident.Broker]*grpc.ClientConn
}

func (l *linesOf) Conn(b ident.Broker) (grpc.ClientConnInterface, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.conns[b]; c != nil {
		return c, nil
	}
	c, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, MaxDelay: 500 * time.Millisecond}}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			l.c.mu.Lock()
			addr := l.c.grpcAt[b]
			l.c.mu.Unlock()
			return l.c.w.dial(ctx, l.self, b, addr)
		}))
	if err == nil {
		l.conns[b] = c
	}
	return c, err
}

func newCluster(t testing.TB, voters ...ident.Broker) *cluster {
	return newClusterWith(t, func(*Config) {}, voters...)
}

func newClusterWith(t testing.TB, edit func(*Config), voters ...ident.Broker) *cluster {
	c := &cluster{
		t: t, w: &wires{cut: map[ident.Broker]bool{}, conns: map[net.Conn][2]ident.Broker{}},
		raftAt: map[ident.Broker]string{}, grpcAt: map[ident.Broker]string{}, members: map[ident.Broker]*member{},
	}
	var lns []net.Listener
	for _, id := range voters {
		ln := c.listen("127.0.0.1:0")
		lns = append(lns, ln)
		c.raftAt[id] = ln.Addr().String()
		c.voters = append(c.voters, Member{Broker: id, Address: ln.Addr().String()})
	}
	for i, id := range voters {
		c.start(id, t.TempDir(), lns[i], edit)
	}
	t.Cleanup(func() {
		for _, m := range c.members {
			m.kill()
		}
	})
	return c
}

func (c *cluster) listen(addr string) net.Listener {
	c.t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		c.t.Fatal(err)
	}
	return ln
}

// start starts a broker; ln is where raft listens, nil: where it did before, or anywhere.
func (c *cluster) start(id ident.Broker, dir string, ln net.Listener, edit ...func(*Config)) *member {
	c.t.Helper()
	if ln == nil {
		addr := c.raftAt[id]
		if addr == "" {
			addr = "127.0.0.1:0"
		}
		ln = c.listen(addr)
	}
	rpcLn := c.listen("127.0.0.1:0")
	c.mu.Lock()
	c.raftAt[id], c.grpcAt[id] = ln.Addr().String(), rpcLn.Addr().String()
	c.mu.Unlock()
	of := func(addr string) ident.Broker {
		c.mu.Lock()
		defer c.mu.Unlock()
		for b, a := range c.raftAt {
			if a == addr {
				return b
			}
		}
		return 0
	}
	m := &member{c: c, id: id, dir: dir, ended: make(chan error, 1), rpc: grpc.NewServer()}
	m.cfg = Config{
		Dir: dir, ID: id, Voters: c.voters, Conns: &linesOf{c: c, self: id, conns: map[ident.Broker]*grpc.ClientConn{}},
		Transport: NewTransport(&layer{Listener: ln, w: c.w, self: id, of: of}, nil), Timeout: calm, CommandTimeout: patience,
	}
	for _, e := range edit {
		e(&m.cfg)
	}
	var err error
	if m.Controller, err = Open(m.cfg); err != nil {
		c.t.Fatal(err)
	}
	peerpb.RegisterControllerServer(m.rpc, &Service{Controller: m.Controller})
	go m.rpc.Serve(rpcLn)
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	go func() { m.ended <- m.Run(ctx) }()
	c.members[id] = m
	return m
}

// kill ends a broker the rough way: nobody hears of it.
func (m *member) kill() {
	if m.stop == nil {
		return
	}
	m.c.w.sever(m.id)
	m.rpc.Stop()
	m.stop()
	m.stop = nil
	select {
	case err := <-m.ended:
		if err != nil {
			m.c.t.Errorf("broker %d ended with %v", m.id, err)
		}
	case <-time.After(patience):
		m.c.t.Errorf("broker %d does not end", m.id)
	}
	m.c.w.mend(m.id)
}

func (c *cluster) ready(ids ...ident.Broker) {
	c.t.Helper()
	for _, id := range ids {
		select {
		case <-c.members[id].Ready():
		case <-time.After(patience):
			c.t.Fatalf("broker %d is not ready", id)
		}
	}
}

// leader waits until one of the running brokers leads.
func (c *cluster) leader(but ...ident.Broker) *member {
	c.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for id, m := range c.members {
			if _, leads := m.Leads(); leads && m.stop != nil && !slices.Contains(but, id) {
				return m
			}
		}
	}
	c.t.Fatal("nobody leads")
	return nil
}

// committer commits rising offsets to one partition through one broker, as a coordinator does.
type committer struct {
	m         *member
	partition int32
	epoch     Epoch
	seq       uint64
	acked     ident.Offset
	slowest   time.Duration
}

func (k *committer) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if k.epoch == 0 {
			epochs, err := k.m.Claim(ctx, []Claim{{Partition: k.partition}})
			if errors.Is(err, ErrUnknown) || errors.Is(err, ErrNotLeader) {
				continue
			}
			if err != nil {
				return err
			}
			k.epoch, k.seq = epochs[0], 0
			for _, o := range k.m.Offsets(k.partition, "g") {
				if o.Offset.Offset < k.acked {
					return fmt.Errorf("partition %d: claim shows %d, %d was acknowledged", k.partition, o.Offset.Offset, k.acked)
				}
			}
		}
		k.seq++
		start := time.Now()
		err := k.m.Write(ctx, &Batch{Partition: k.partition, Epoch: k.epoch, Seq: k.seq, Ops: []Op{offsetsOp("g", 0, k.acked+1)}})
		k.slowest = max(k.slowest, time.Since(start))
		switch {
		case err == nil || errors.Is(err, ErrStale):
			k.acked++
		case ctx.Err() != nil:
		case errors.Is(err, ErrUnknown), errors.Is(err, ErrNotLeader), errors.Is(err, ErrFenced):
			k.epoch = 0
		default:
			return err
		}
	}
	return nil
}

// commit runs committers through the given brokers until stop, which returns them.
func (c *cluster) commit(through ...ident.Broker) (stop func() []*committer) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var all []*committer
	for i := range 6 {
		k := &committer{m: c.members[through[i%len(through)]], partition: int32(i)}
		all = append(all, k)
		wg.Go(func() {
			if err := k.run(ctx); err != nil && ctx.Err() == nil {
				c.t.Error(err)
			}
		})
	}
	return func() []*committer { cancel(); wg.Wait(); return all }
}

// settled does what may be asked again until it is known how it ended: the controller may change at any time.
func (c *cluster) settled(do func() error) {
	c.t.Helper()
	err := do()
	for end := time.Now().Add(patience); (errors.Is(err, ErrUnknown) || errors.Is(err, ErrNotLeader)) && time.Now().Before(end); err = do() {
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// holds checks that a broker shows what the committers were told.
func (c *cluster) holds(m *member, all []*committer) {
	c.t.Helper()
	for _, k := range all {
		var e Epoch
		c.settled(func() (err error) {
			epochs, err := m.Claim(c.t.Context(), []Claim{{Partition: k.partition}})
			if err == nil {
				e = epochs[0]
			}
			return err
		})
		c.settled(func() error { return m.Confirm(c.t.Context(), k.partition, e) })
		got := m.Offsets(k.partition, "g")
		if k.acked > 0 && (len(got) != 1 || got[0].Offset.Offset < k.acked) {
			c.t.Errorf("broker %d, partition %d: %+v, %d was acknowledged", m.id, k.partition, got, k.acked)
		}
	}
}

// TestFirstElection: a cluster that starts does not wait for raft's timeouts to run out before it has a controller.
func TestFirstElection(t *testing.T) {
	c := newClusterWith(t, func(cfg *Config) { cfg.Timeout = patience / 2 }, 1, 2, 3)
	leads := c.leader()
	if took := time.Since(leads.started); took >= leads.cfg.Timeout {
		t.Errorf("a leader after %v", took)
	}
}

// TestKillLeader: a leader that is gone is replaced, and those who are told that it is gone do not wait for its silence to
// become long enough.
func TestKillLeader(t *testing.T) {
	for _, told := range []bool{false, true} {
		t.Run(fmt.Sprintf("told=%v", told), func(t *testing.T) {
			silence := calm
			if told {
				silence = patience / 3
			}
			c := newClusterWith(t, func(cfg *Config) { cfg.Timeout = silence }, 1, 2, 3)
			c.ready(1, 2, 3)
			old := c.leader()
			var left []ident.Broker
			for id := range c.members {
				if id != old.id {
					left = append(left, id)
				}
			}
			stop := c.commit(left...)
			time.Sleep(300 * time.Millisecond)
			start := time.Now()
			// Not kill: its way out would hand the lead over.
			c.w.sever(old.id)
			if told {
				for _, id := range left {
					c.members[id].LeaderGone(old.id)
				}
			}
			fresh := c.leader(old.id)
			took := time.Since(start)
			time.Sleep(300 * time.Millisecond)
			all := stop()
			var slowest time.Duration
			var acked ident.Offset
			for _, k := range all {
				slowest, acked = max(slowest, k.slowest), acked+k.acked
			}
			t.Logf("new leader after %v, slowest write %v, %d writes", took, slowest, acked)
			limit := silence
			if !told { // elections that nobody won
				limit = 8 * silence
			}
			if took >= limit || slowest >= limit {
				t.Errorf("that is too long: silence takes %v", silence)
			}
			for _, id := range left {
				c.holds(c.members[id], all)
			}
			// The old leader cannot promise anything, and comes back as a follower.
			ctx, cancel := context.WithTimeout(t.Context(), calm)
			defer cancel()
			if err := old.Write(ctx, &Batch{Partition: 40, Epoch: 1, Seq: 1}); err == nil {
				t.Error("a leader that was cut off promised")
			}
			c.w.mend(old.id)
			c.holds(old, all)
			if term, _ := fresh.Leads(); term == 0 {
				t.Log("the lead moved again")
			}
		})
	}
}

// TestJoin: a broker joins without a vote, far behind, gets a snapshot; it is promoted; then the cluster goes on
// without one of the first voters.
func TestJoin(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.ready(1, 2, 3)
	stop := c.commit(1, 2, 3)
	time.Sleep(100 * time.Millisecond)
	all := stop()
	lead := c.leader()
	for _, m := range c.members { // nobody has the first entries any more
		if err := m.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	joined := c.start(4, t.TempDir(), nil, func(cfg *Config) { cfg.Voters = nil })
	select {
	case <-joined.Ready():
		t.Fatal("ready before it joined")
	case <-time.After(50 * time.Millisecond):
	}
	call := func(via *member, verb string, b ident.Broker) []*peerpb.Member {
		t.Helper()
		reply, err := (&Service{Controller: via.Controller}).Voters(t.Context(), &peerpb.VotersRequest{Verb: verb, Broker: int32(b)})
		if err != nil {
			t.Fatal(err)
		}
		return reply.GetMembers()
	}
	via := c.members[1]
	if via == lead {
		via = c.members[2]
	}
	rq := &peerpb.JoinRequest{Broker: 4, Address: c.raftAt[4]}
	reply, err := (&Service{Controller: via.Controller}).Join(t.Context(), rq) // passed on to the leader
	if err != nil || len(reply.GetMembers()) != 4 {
		t.Fatalf("join: %v, %v", reply, err)
	}
	c.ready(4)
	c.holds(joined, all)
	if id, _, ok := joined.Leader(); !ok || id != lead.id || joined.Address(1) != c.raftAt[1] {
		t.Errorf("the new broker knows leader %d, broker 1 at %q", id, joined.Address(1))
	}
	if _, err := (&Service{Controller: via.Controller}).Voters(t.Context(), &peerpb.VotersRequest{Verb: "promote", Broker: 9}); err == nil {
		t.Error("a broker that is no member was promoted")
	}
	call(via, "promote", 4)
	call(via, "demote", via.id)
	members := call(joined, "remove", via.id)
	voters := 0
	for _, m := range members {
		if m.GetVoter() {
			voters++
		}
	}
	if len(members) != 3 || voters != 3 {
		t.Fatalf("members %v", members)
	}
	via.kill()
	lead.kill() // a majority of the new voters is left
	c.leader(lead.id, via.id)
	c.holds(joined, all)
}

// TestRejoin: brokers that were away come back with their directories, at another address too.
func TestRejoin(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.ready(1, 2, 3)
	away := c.members[3]
	away.kill()
	c.leader(3)
	stop := c.commit(1, 2)
	time.Sleep(100 * time.Millisecond)
	all := stop()
	c.mu.Lock()
	delete(c.raftAt, 3) // which raft's dialers look at
	c.mu.Unlock()
	back := c.start(3, away.dir, nil)
	join := &peerpb.JoinRequest{Broker: 3, Address: c.raftAt[3]}
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) { // as whoever joins does
		if _, err := (&Service{Controller: c.members[1].Controller}).Join(t.Context(), join); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	c.ready(3)
	c.holds(back, all)
	voters := 0
	for _, m := range back.Members() {
		if m.Voter {
			voters++
		}
	}
	if voters != 3 {
		t.Errorf("%d voters", voters)
	}
}

// TestNoQuorum: without a majority a command is answered in bounded time, and nothing is promised.
func TestNoQuorum(t *testing.T) {
	c := newClusterWith(t, func(cfg *Config) { cfg.CommandTimeout = 3 * time.Second }, 1, 2, 3)
	c.ready(1, 2, 3)
	lead := c.leader()
	e := claim(t, lead.Controller, 7, 0)
	for id := range c.members {
		c.w.sever(id)
	}
	start := time.Now()
	err := lead.Write(t.Context(), &Batch{Partition: 7, Epoch: e, Seq: 1, Ops: []Op{offsetsOp("g", 0, 1)}})
	if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrNotLeader) {
		t.Errorf("write without a majority: %v", err)
	}
	if err := lead.Confirm(t.Context(), 7, e); err == nil {
		t.Error("a leader without a majority confirmed")
	}
	if took := time.Since(start); took > patience/2 {
		t.Errorf("answered after %v", took)
	}
	for id := range c.members {
		c.w.mend(id)
	}
	// The same batch again settles it.
	c.settled(func() error {
		err := lead.Write(t.Context(), &Batch{Partition: 7, Epoch: e, Seq: 1, Ops: []Op{offsetsOp("g", 0, 1)}})
		if errors.Is(err, ErrStale) {
			return nil
		}
		return err
	})
	c.settled(func() error { return lead.Confirm(t.Context(), 7, e) })
	if got := lead.Offsets(7, "g"); len(got) != 1 {
		t.Errorf("offsets %+v", got)
	}
}

// TestLead: exactly one broker at a time runs what the leader runs, until it is deposed.
func TestLead(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	type event struct {
		id    ident.Broker
		term  uint64
		began bool
	}
	events := make(chan event, 100)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for id, m := range c.members {
		wg.Go(func() {
			m.Lead(ctx, func(ctx context.Context, term uint64) {
				events <- event{id, term, true}
				<-ctx.Done()
				events <- event{id, term, false}
			})
		})
	}
	first := <-events
	if !first.began || c.leader().id != first.id {
		t.Fatalf("%+v", first)
	}
	c.w.sever(first.id)
	var terms []uint64
	for range 2 { // the end of one, the beginning of another, in either order
		e := <-events
		if e.began == (e.id == first.id) || e.term < first.term {
			t.Fatalf("%+v after %+v", e, first)
		}
		terms = append(terms, e.term)
	}
	if slices.Max(terms) <= first.term {
		t.Errorf("terms %d after %d", terms, first.term)
	}
	c.w.mend(first.id)
}

// TestHandOver: a leader that is asked to stop leaves no gap.
func TestHandOver(t *testing.T) {
	c := newClusterWith(t, func(cfg *Config) { cfg.Timeout = patience / 3 }, 1, 2, 3)
	c.ready(1, 2, 3)
	old := c.leader()
	stopped := make(chan struct{})
	start := time.Now()
	cut := old.stop
	old.stop = nil
	go func() { cut(); <-old.ended; close(stopped) }()
	c.leader(old.id)
	if took := time.Since(start); took > old.cfg.Timeout { // nobody waited for an election
		t.Errorf("nobody led for %v", took)
	}
	<-stopped
	old.rpc.Stop()
}
