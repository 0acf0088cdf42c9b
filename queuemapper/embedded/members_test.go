package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// place is where one member of a test runs: it keeps its port and directory over restarts.
type place struct {
	name, url, dir string
	handler        atomic.Pointer[http.Handler]
	slow           atomic.Int64 // what it waits before it says who the members are
	http           *http.Server
	member         *Server
	client         *clientv3.Client // through a listener, as brokers do
}

// patience is for what is as slow as the machine: it is no bound that is tested.
const patience = 2 * time.Minute

// listenStable listens on a port below those that the system hands out by itself: while a member is away, nobody else gets it,
// nor do those that dial it meet themselves there.
func listenStable(t *testing.T) net.Listener {
	t.Helper()
	for range 100 {
		if ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 28000+rand.IntN(4000))); err == nil {
			return ln
		}
	}
	t.Fatal("no free port")
	return nil
}

func newPlace(t *testing.T, i int) *place {
	t.Helper()
	ln := listenStable(t)
	p := &place{name: fmt.Sprintf("broker-%d", i), url: "http://" + ln.Addr().String(), dir: t.TempDir()}
	p.serve(ln)
	t.Cleanup(func() {
		p.close()
		p.http.Close()
	})
	return p
}

func (p *place) serve(ln net.Listener) {
	p.http = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/members" {
			time.Sleep(time.Duration(p.slow.Load()))
		}
		if h := p.handler.Load(); h != nil && *h != nil {
			(*h).ServeHTTP(w, r)
			return
		}
		http.Error(w, "starting", http.StatusServiceUnavailable)
	})}
	go p.http.Serve(ln)
}

func (p *place) start(ctx context.Context, t *testing.T, members map[string]string, join bool) (err error) {
	p.member, err = Start(ctx, Config{
		Dir: p.dir, Name: p.name, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Peers: &Peers{URL: p.url, Members: members, Join: join, Handle: func(h http.Handler) { p.handler.Store(&h) }},
	})
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.member.ServeClients(ln) // which closes it
	p.client, err = clientv3.New(clientv3.Config{Endpoints: []string{ln.Addr().String()}, Logger: zap.NewNop()})
	return err
}

func (p *place) close() {
	if p.client != nil {
		p.client.Close()
	}
	if p.member != nil {
		p.member.Close()
	}
	p.client, p.member = nil, nil
}

// kill ends a member as a crash would: its port answers nobody.
func (p *place) kill() {
	p.http.Close()
	p.close()
}

func (p *place) listenAgain(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("tcp", p.url[len("http://"):])
	if err != nil {
		t.Fatal(err)
	}
	p.serve(ln)
}

// form starts n members at once.
func form(t *testing.T, n int) []*place {
	t.Helper()
	var places []*place
	members := map[string]string{}
	for i := range n {
		p := newPlace(t, i+1)
		places = append(places, p)
		members[p.name] = p.url
	}
	begin := time.Now()
	var g errgroup.Group
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, p := range places {
		g.Go(func() error { return p.start(ctx, t, members, false) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d members ready in %v", n, time.Since(begin))
	return places
}

// split waits until all know the same leader: a member that stood still may have caused another election.
func split(t *testing.T, places []*place) (leader *place, others []*place) {
	t.Helper()
	agreed := func() bool {
		id := places[0].member.Leader()
		return !slices.ContainsFunc(places, func(p *place) bool { return p.member.Leader() != id })
	}
	for end := time.Now().Add(patience); leader == nil; time.Sleep(time.Millisecond) { // etcd is polled
		if time.Now().After(end) {
			t.Fatal("no leader")
		}
		if others = nil; !agreed() {
			continue
		}
		for _, p := range places {
			if p.member.ID() == p.member.Leader() {
				leader = p
			} else {
				others = append(others, p)
			}
		}
	}
	return leader, others
}

// mustDo asks until it is answered with something else than that there is no leader, or another one than before.
func mustDo(t *testing.T, do func() error) {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		err := do()
		if err == nil {
			return
		}
		if !leaderless(err) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func leaderless(err error) bool {
	return errors.Is(err, rpctypes.ErrLeaderChanged) || errors.Is(err, rpctypes.ErrNoLeader)
}

func put(t *testing.T, c *clientv3.Client) func() error {
	return func() error { _, err := c.Put(t.Context(), "k", "v"); return err }
}

// TestLeaderDies measures how long no write is possible, as the clients of the survivors see it.
func TestLeaderDies(t *testing.T) {
	places := form(t, 3)
	// One that stands and has not got everything yet is not elected, and then the other one's timeout decides; and a machine may
	// be slow. Without LeaderGone no round takes less than the shortest election timeout.
	const soon = peerElectionTicks * peerTickMs * time.Millisecond / 2
	fastest := time.Hour
	for round := 0; round < 3 || fastest >= soon && round < 20; round++ {
		leader, others := split(t, places)
		c := others[0].client
		mustDo(t, put(t, c))
		members := map[string]string{}
		leader.kill()
		begin := time.Now()
		if err := others[1].member.LeaderGone(t.Context(), leader.name); err != nil { // who sees that nothing listens there any more
			t.Fatal(err)
		}
		for tries := 1; ; tries++ {
			err := put(t, c)()
			took := time.Since(begin)
			if err == nil {
				t.Logf("round %d: writable after %v, %d tries", round, took, tries)
				fastest = min(fastest, took)
				break
			}
			if !leaderless(err) || took > patience { // of a request that etcd leaves waiting it says, seconds later, that its time is over
				t.Fatalf("try %d after %v: %v", tries, took, err)
			}
		}
		leader.listenAgain(t)
		if err := leader.start(t.Context(), t, members, false); err != nil {
			t.Fatal(err)
		}
	}
	if fastest >= soon {
		t.Errorf("never writable within half of an election timeout, but after %v", fastest)
	}
}

// TestNoQuorum: what a member without a quorum is asked is answered with an error, soon: as the guard does, and not with that of
// etcd, whose time for a request is over much later.
func TestNoQuorum(t *testing.T) {
	places := form(t, 3)
	for _, p := range places[1:] {
		p.kill()
	}
	c := places[0].client
	once := pb.NewKVClient(c.ActiveConnection()) // clientv3 asks again what may be asked again
	for i := range 3 {
		begin := time.Now()
		_, err := c.Put(t.Context(), "k", "v")
		_, rerr := once.Range(t.Context(), &pb.RangeRequest{Key: []byte("k")})
		if rerr = rpctypes.Error(rerr); !leaderless(err) || !leaderless(rerr) {
			t.Errorf("request %d, after %v: a write %v, a read %v", i, time.Since(begin), err, rerr)
		}
	}
	for _, p := range places[1:] {
		p.listenAgain(t)
	}
	var g errgroup.Group
	for _, p := range places[1:] {
		g.Go(func() error { return p.start(t.Context(), t, nil, false) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	mustDo(t, put(t, c))
}

// TestGrow: one member, started without others, becomes three, and one of them goes.
func TestGrow(t *testing.T) {
	first := newPlace(t, 1)
	single, err := Start(t.Context(), Config{Dir: first.dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := single.Client().Put(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	single.Close()
	if err := first.start(t.Context(), t, nil, false); err != nil {
		t.Fatal(err)
	}
	c := first.client
	if err := Update(t.Context(), c, first.member.ID(), first.url); err != nil {
		t.Fatal(err)
	}
	for i := 2; i <= 3; i++ {
		p := newPlace(t, i)
		list, err := AddLearner(t.Context(), c, p.url)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.start(t.Context(), t, Names(list, p.name, p.url), true); err != nil {
			t.Fatal(err)
		}
		if err := Promote(t.Context(), c, p.member.ID()); err != nil {
			t.Fatal(err)
		}
		for !p.member.Led() { // not told yet of its vote
			time.Sleep(time.Millisecond)
		}
		var got *clientv3.GetResponse
		mustDo(t, func() (err error) { got, err = p.client.Get(t.Context(), "k"); return err })
		if got.Count != 1 {
			t.Fatalf("member %d: %v", i, got)
		}
		if i == 3 {
			if err := Remove(t.Context(), c, p.member.ID()); err != nil {
				t.Fatal(err)
			}
			select {
			case <-p.member.Stopped():
			case <-time.After(patience):
				t.Error("the removed member goes on")
			}
		}
	}
	if list := first.member.Members(); len(list) != 2 || list[0].Name == "" {
		t.Errorf("members %+v", list)
	}
}

// TestWipedMember: a member that lost its directory is not taken for a new one, also while the others are slow.
func TestWipedMember(t *testing.T) {
	places := form(t, 3)
	members := map[string]string{}
	for _, p := range places {
		members[p.name] = p.url
	}
	p := places[2]
	p.kill()
	p.listenAgain(t)
	p.dir = t.TempDir()
	for _, other := range places[:2] {
		other.slow.Store(int64(2 * time.Second))
	}
	if err := p.start(t.Context(), t, members, false); err == nil {
		t.Error("started")
	} else {
		t.Log(err)
	}
}

// TestServeClients: a client of another process follows the store over the death of a member.
func TestServeClients(t *testing.T) {
	places := form(t, 3)
	var endpoints []string
	for _, p := range places {
		endpoints = append(endpoints, p.client.Endpoints()...)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, MaxCallSendMsgSize: MaxMessage})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	big := make([]byte, MaxBytes/8)
	var puts []clientv3.Op
	for i := range 8 {
		puts = append(puts, clientv3.OpPut(fmt.Sprint("big", i), string(big)))
	}
	mustDo(t, func() error { _, err := c.Txn(t.Context()).Then(puts...).Commit(); return err }) // as large as a map store makes them
	mustDo(t, put(t, c))
	leader, _ := split(t, places)
	leader.kill()
	begin := time.Now()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), patience/10)
		_, err := c.Put(ctx, "k", "v")
		cancel()
		if err == nil {
			break
		}
		t.Logf("after %v: %v", time.Since(begin), err)
		if time.Since(begin) > patience {
			t.Fatal("not writable")
		}
	}
	t.Logf("writable after %v", time.Since(begin))
}

// TestDroppedChange: a change that etcd drops without an answer is asked for again.
func TestDroppedChange(t *testing.T) {
	tries := 0
	synctest.Test(t, func(t *testing.T) {
		err := again(t.Context(), func(ctx context.Context) error {
			if tries++; tries == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		if err != nil || tries != 2 {
			t.Errorf("%d tries: %v", tries, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), changePatience/2)
		defer cancel()
		if err := again(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after the caller's time: %v", err)
		}
	})
}

// members answers one question about the members with each of its errors first, and then with yes.
type members struct {
	pb.ClusterClient
	errs  []error
	tries int
}

func (m *members) next() error {
	if m.tries++; m.tries <= len(m.errs) {
		return m.errs[m.tries-1]
	}
	return nil
}

func (m *members) MemberAdd(context.Context, *pb.MemberAddRequest, ...grpc.CallOption) (*pb.MemberAddResponse, error) {
	return &pb.MemberAddResponse{}, m.next()
}

func (m *members) MemberRemove(context.Context, *pb.MemberRemoveRequest, ...grpc.CallOption) (*pb.MemberRemoveResponse, error) {
	return &pb.MemberRemoveResponse{}, m.next()
}

func (m *members) MemberUpdate(context.Context, *pb.MemberUpdateRequest, ...grpc.CallOption) (*pb.MemberUpdateResponse, error) {
	return &pb.MemberUpdateResponse{}, m.next()
}

func (m *members) MemberList(context.Context, *pb.MemberListRequest, ...grpc.CallOption) (*pb.MemberListResponse, error) {
	return &pb.MemberListResponse{}, m.next()
}

func (m *members) MemberPromote(context.Context, *pb.MemberPromoteRequest, ...grpc.CallOption) (*pb.MemberPromoteResponse, error) {
	return &pb.MemberPromoteResponse{}, m.next()
}

// TestPassingAnswers: what etcd answers around an election, or while it is not whole, is not the end of a change; what it will
// say again is.
func TestPassingAnswers(t *testing.T) {
	passing := []error{
		rpctypes.ErrGRPCLeaderChanged, rpctypes.ErrGRPCNoLeader, rpctypes.ErrGRPCTimeout, rpctypes.ErrGRPCTimeoutDueToLeaderFail,
		rpctypes.ErrGRPCTimeoutWaitAppliedIndex, rpctypes.ErrGRPCUnhealthy, rpctypes.ErrGRPCLearnerNotReady, status.Error(codes.Unavailable, "connection refused"),
	}
	for name, do := range map[string]func(context.Context, *clientv3.Client) error{
		"list": func(ctx context.Context, c *clientv3.Client) error { _, err := List(ctx, c); return err },
		"add": func(ctx context.Context, c *clientv3.Client) error {
			_, err := AddLearner(ctx, c, "http://127.0.0.1:1")
			return err
		},
		"promote": func(ctx context.Context, c *clientv3.Client) error { return Promote(ctx, c, 1) },
		"remove":  func(ctx context.Context, c *clientv3.Client) error { return Remove(ctx, c, 1) },
		"update":  func(ctx context.Context, c *clientv3.Client) error { return Update(ctx, c, 1, "http://127.0.0.1:1") },
	} {
		synctest.Test(t, func(t *testing.T) {
			ask := func(errs ...error) error {
				return do(t.Context(), &clientv3.Client{Cluster: clientv3.NewClusterFromClusterClient(&members{errs: errs}, nil)})
			}
			if err := ask(passing...); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			for _, final := range []error{rpctypes.ErrGRPCMemberNotEnoughStarted, rpctypes.ErrGRPCTooManyLearners, status.Error(codes.Unknown, "else")} {
				if err := ask(rpctypes.ErrGRPCLeaderChanged, final); err == nil || !strings.Contains(err.Error(), status.Convert(final).Message()) {
					t.Errorf("%s, asked until %v: %v", name, final, err)
				}
			}
		})
	}
	m := &members{errs: []error{rpctypes.ErrGRPCStopped}}
	if err := Update(t.Context(), &clientv3.Client{Cluster: clientv3.NewClusterFromClusterClient(m, nil)}, 1, "http://127.0.0.1:1"); !errors.Is(err, ErrStopped) {
		t.Errorf("the member's own server stopped: %v", err)
	}
}
