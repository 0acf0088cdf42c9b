package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/test/history"
	"github.com/skeinmq/skein/test/load"
)

// groupWatch is a classic group of one dynamic and one static member, driven request by request: they join once and then
// only heartbeat and commit, so that nothing but the cluster can make them rebalance.
type groupWatch struct {
	r          *run
	cl         *kgo.Client
	name       string
	topic      string
	topicID    [16]byte
	generation int32
	members    []groupMember
	beats      atomic.Int64 // good heartbeats
	lastGood   atomic.Int64 // when the last one was asked for, in nanoseconds of the wall clock
	silence    atomic.Int64 // the longest time between two good answers to the committer, in nanoseconds
	acked      atomic.Int64 // the greatest committed offset that was acknowledged
	sent       atomic.Int64 // the greatest one that was tried
	commits    atomic.Int64
	odd        atomic.Int64 // retriable refusals that reached us
}

// groupMember has a client of its own: what waits on a connection holds up what comes behind it.
type groupMember struct {
	id, instance string
	cl           *kgo.Client
}

const watchedTopic = "watched"

// watchGroups makes n groups and has them formed.
func (r *run) watchGroups(n int) []*groupWatch {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*settlePatience)
	defer cancel()
	var all []*groupWatch
	client := func() *kgo.Client {
		cl, err := (&load.Load{Seeds: r.c.Seeds()}).Client(kgo.RetryTimeout(20 * time.Second))
		r.must(err)
		r.t.Cleanup(cl.Close)
		return cl
	}
	resp, err := kadm.NewClient(client()).CreateTopic(ctx, 1, -1, nil, watchedTopic)
	r.must(err)
	r.must(resp.Err)
	for i := range n {
		all = append(all, &groupWatch{
			r: r, cl: client(), name: fmt.Sprintf("watched-%d", i), topic: watchedTopic, topicID: resp.ID,
			members: []groupMember{{cl: client()}, {cl: client(), instance: "static"}},
		})
	}
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i, g := range all {
		wg.Go(func() {
			base := g.name
			for try := range 5 { // a coordinator that moves while a group forms may make its members begin again
				g.name = fmt.Sprintf("%s-%d", base, try)
				g.members[0].id, g.members[1].id = "", ""
				if errs[i] = g.form(ctx); errs[i] == nil {
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		r.must(err)
	}
	return all
}

// form has the first member join and sync, then the second one join, and the first one again when it is called.
func (g *groupWatch) form(ctx context.Context) error {
	first, second := &g.members[0], &g.members[1]
	resp, err := g.join(ctx, first)
	if err != nil {
		return fmt.Errorf("join %s: %w", g.name, err)
	}
	g.generation = resp.Generation
	if err := g.sync(ctx, first, true); err != nil {
		return fmt.Errorf("sync %s: %w", g.name, err)
	}
	joined := make(chan error, 1)
	go func() {
		_, err := g.join(ctx, second)
		joined <- err
	}()
	for called := false; !called; pauseFor(ctx, 5*time.Millisecond) {
		code, err := g.heartbeat(ctx, first)
		if err != nil {
			return fmt.Errorf("heartbeat of %s: %w", g.name, err)
		}
		called = kerr.ErrorForCode(code) == kerr.RebalanceInProgress
	}
	resp, err = g.join(ctx, first)
	if err = errors.Join(err, <-joined); err != nil {
		return fmt.Errorf("join %s: %w", g.name, err)
	}
	g.generation = resp.Generation
	return errors.Join(g.sync(ctx, first, resp.LeaderID == first.id), g.sync(ctx, second, resp.LeaderID == second.id))
}

func (g *groupWatch) heartbeat(ctx context.Context, m *groupMember) (int16, error) {
	rq := kmsg.NewPtrHeartbeatRequest()
	rq.Group, rq.MemberID, rq.Generation = g.name, m.id, g.generation
	if m.instance != "" {
		rq.InstanceID = &m.instance
	}
	resp, err := rq.RequestWith(ctx, m.cl)
	if err != nil {
		return 0, err
	}
	return resp.ErrorCode, nil
}

func (g *groupWatch) join(ctx context.Context, m *groupMember) (*kmsg.JoinGroupResponse, error) {
	for {
		rq := kmsg.NewPtrJoinGroupRequest()
		rq.Group, rq.MemberID, rq.ProtocolType = g.name, m.id, "consumer"
		rq.SessionTimeoutMillis, rq.RebalanceTimeoutMillis = 300_000, 15_000 // nobody is sent away because the machine was slow
		if m.instance != "" {
			rq.InstanceID = &m.instance
		}
		p := kmsg.NewJoinGroupRequestProtocol()
		meta := kmsg.NewConsumerMemberMetadata()
		meta.Topics = []string{g.topic}
		p.Name, p.Metadata = "range", meta.AppendTo(nil)
		rq.Protocols = append(rq.Protocols, p)
		resp, err := rq.RequestWith(ctx, m.cl)
		if err != nil {
			return nil, err
		}
		m.id = resp.MemberID
		err = kerr.ErrorForCode(resp.ErrorCode)
		if err == kerr.MemberIDRequired {
			continue
		}
		return resp, err
	}
}

func (g *groupWatch) sync(ctx context.Context, m *groupMember, leads bool) error {
	rq := kmsg.NewPtrSyncGroupRequest()
	rq.Group, rq.MemberID, rq.Generation = g.name, m.id, g.generation
	if m.instance != "" {
		rq.InstanceID = &m.instance
	}
	kind, protocol := "consumer", "range"
	rq.ProtocolType, rq.Protocol = &kind, &protocol
	if leads {
		for _, o := range g.members {
			a := kmsg.NewSyncGroupRequestGroupAssignment()
			a.MemberID, a.MemberAssignment = o.id, []byte("of "+o.id)
			rq.GroupAssignment = append(rq.GroupAssignment, a)
		}
	}
	resp, err := rq.RequestWith(ctx, m.cl)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.ErrorCode)
}

// live heartbeats and commits until ctx ends; whatever would make a client rebalance is a failure of the test.
func (g *groupWatch) live(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range g.members {
		m := &g.members[i]
		wg.Go(func() {
			for ctx.Err() == nil {
				at := time.Now()
				if code, err := g.heartbeat(ctx, m); err == nil && g.judge("heartbeat", code) {
					g.beats.Add(1)
					g.lastGood.Store(max(g.lastGood.Load(), at.UnixNano()))
				}
				pauseFor(ctx, 40*time.Millisecond)
			}
		})
	}
	wg.Go(func() {
		for last := time.Now(); ctx.Err() == nil; {
			if g.commit(ctx) {
				g.silence.Store(max(g.silence.Load(), int64(time.Since(last))))
				last = time.Now()
			}
			g.fetch(ctx)
			pauseFor(ctx, 20*time.Millisecond)
		}
	})
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// judge says whether a request succeeded.
func (g *groupWatch) judge(what string, code int16) bool {
	switch err := kerr.ErrorForCode(code); err {
	case nil:
		return true
	case kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.FencedInstanceID, kerr.InvalidGroupID:
		g.r.t.Errorf("%s of %s: %v", what, g.name, err)
	default:
		g.odd.Add(1)
	}
	return false
}

func (g *groupWatch) commit(ctx context.Context) bool {
	next := g.sent.Add(1)
	rq := kmsg.NewPtrOffsetCommitRequest()
	rq.Group, rq.Generation, rq.MemberID = g.name, g.generation, g.members[0].id
	t, p := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
	t.Topic, t.TopicID, p.Offset = g.topic, g.topicID, next
	t.Partitions = append(t.Partitions, p)
	rq.Topics = append(rq.Topics, t)
	resp, err := rq.RequestWith(ctx, g.cl)
	if err != nil || len(resp.Topics) != 1 || !g.judge("commit", resp.Topics[0].Partitions[0].ErrorCode) {
		return false
	}
	g.acked.Store(next)
	g.commits.Add(1)
	return true
}

// fetch checks that the committed offset is at least the one acknowledged, and none that was never sent.
func (g *groupWatch) fetch(ctx context.Context) {
	acked := g.acked.Load()
	rq := kmsg.NewPtrOffsetFetchRequest()
	rq.Group = g.name // of old versions
	rg := kmsg.NewOffsetFetchRequestGroup()
	rg.Group = g.name
	t := kmsg.NewOffsetFetchRequestGroupTopic()
	t.Topic, t.TopicID, t.Partitions = g.topic, g.topicID, []int32{0}
	rg.Topics = append(rg.Topics, t)
	rq.Groups = append(rq.Groups, rg)
	resp, err := rq.RequestWith(ctx, g.cl)
	if err != nil || len(resp.Groups) != 1 || !g.judge("offset fetch", resp.Groups[0].ErrorCode) {
		return
	}
	p := resp.Groups[0].Topics[0].Partitions[0]
	if g.judge("offset fetch", p.ErrorCode) && (acked > 0 && p.Offset < acked || p.Offset > g.sent.Load()) {
		g.r.t.Errorf("%s: committed offset %d after %d was acknowledged", g.name, p.Offset, acked)
	}
}

// coordinators is who each of the groups has as its coordinator, by what one broker says.
func (r *run) coordinators(cl *kgo.Client, by int, all []*groupWatch) map[string]int32 {
	rq := kmsg.NewPtrFindCoordinatorRequest()
	for _, g := range all {
		rq.CoordinatorKeys = append(rq.CoordinatorKeys, g.name)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), settlePatience/4)
	defer cancel()
	kresp, err := cl.Broker(by).Request(ctx, rq)
	out := make(map[string]int32)
	if err != nil {
		return out
	}
	for _, c := range kresp.(*kmsg.FindCoordinatorResponse).Coordinators {
		if c.ErrorCode == 0 {
			out[c.Key] = c.NodeID
		}
	}
	return out
}

// settleGroups waits until every group has had a heartbeat answered that was asked for at the moment or later.
func (r *run) settleGroups(fault string, all []*groupWatch, since time.Time) {
	r.t.Helper()
	for end := time.Now().Add(settlePatience); ; time.Sleep(2 * time.Millisecond) {
		stale := ""
		for _, g := range all {
			if g.lastGood.Load() < since.UnixNano() {
				stale = g.name
			}
		}
		if stale == "" {
			r.writable["groups: "+fault] = append(r.writable["groups: "+fault], time.Since(since))
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s: %s has no good heartbeat %v later\n%s", fault, stale, settlePatience, r.c.Logs())
		}
	}
}

// TestGroups: groups whose coordinator is killed, stopped or paused keep members, generation and offsets; nobody
// is made to rebalance.
func TestGroups(t *testing.T) {
	c := clusterOf(t, 3)
	r := begin(t, c)
	groups := r.watchGroups(30)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, g := range groups {
		wg.Go(func() { g.live(ctx) })
	}
	r.settleGroups("start", groups, time.Now())
	ids := r.producerIDs(ctx, &wg)
	witnessed := func(by int) { // else the next fault is one that nobody can survive
		if s, ok := c.(*Skein); ok {
			s.awaitView(t, by, "every log has two witnesses", func(v view) bool {
				return !slices.ContainsFunc(c.IDs(), func(id int) bool { return len(v.witnesses(id)) != 2 })
			})
		}
	}
	for round := range 2 {
		for _, id := range c.IDs() {
			witnessed(id)
			owned := 0
			for _, node := range r.coordinators(groups[0].cl, 1+id%3, groups) {
				if int(node) == id {
					owned++
				}
			}
			r.endCoordinator(groups, []string{"kill", "stop", "pause"}[(round+id)%3], id, owned)
			r.settleGroups("start", groups, time.Now())
			r.awaitCoordinators(groups, id)
		}
	}
	r.listed(groups)
	cancel()
	wg.Wait()
	t.Logf("%d producer ids, no two alike", ids.Load())
	var odd, beats, commits, silence int64
	for _, g := range groups {
		odd, beats, commits, silence = odd+g.odd.Load(), beats+g.beats.Load(), commits+g.commits.Load(), max(silence, g.silence.Load())
		if g.commits.Load() == 0 {
			t.Errorf("%s never committed", g.name)
		}
	}
	t.Logf("%d heartbeats, %d commits, %d other refusals, no group without an answer for longer than %v", beats, commits, odd, time.Duration(silence))
	r.finish()
}

// endCoordinator takes a broker away and back; meanwhile others must coordinate its groups.
func (r *run) endCoordinator(groups []*groupWatch, how string, id, owned int) {
	r.t.Helper()
	at := r.note("%s broker %d, which coordinates %d of %d groups", how, id, owned, len(groups))
	switch how {
	case "kill":
		r.must(r.c.Kill(id))
	case "stop":
		_, err := r.c.Stop(id)
		r.must(err)
	case "pause": // past its session: it sleeps through its replacement
		r.load.H.Tolerate(history.Stale, history.Early)
		r.must(r.c.Pause(id))
	}
	r.settleGroups(how, groups, at)
	if how != "pause" {
		r.must(r.c.Start(id))
		return
	}
	r.pause(1000)
	r.note("broker %d goes on", id)
	r.must(r.c.Continue(id))
}

// producerIDs asks all brokers for producer ids until ctx ends, and fails the test if one comes twice.
func (r *run) producerIDs(ctx context.Context, wg *sync.WaitGroup) *atomic.Int64 {
	count := new(atomic.Int64)
	cl, err := (&load.Load{Seeds: r.c.Seeds()}).Client()
	r.must(err)
	r.t.Cleanup(cl.Close)
	wg.Go(func() {
		seen := make(map[int64]bool)
		for n := 0; ctx.Err() == nil; n++ {
			rq := kmsg.NewPtrInitProducerIDRequest()
			rq.ProducerID, rq.ProducerEpoch = -1, -1
			ask, done := context.WithTimeout(ctx, 300*time.Millisecond)
			resp, err := rq.RequestWith(ask, cl.Broker(1+n%len(r.c.IDs())))
			done()
			if err == nil && resp.ErrorCode == 0 {
				if seen[resp.ProducerID] {
					r.t.Errorf("producer id %d was given twice", resp.ProducerID)
				}
				seen[resp.ProducerID] = true
				count.Add(1)
			}
			pauseFor(ctx, 2*time.Millisecond)
		}
	})
	return count
}

// awaitCoordinators waits until a broker that came back coordinates something again.
func (r *run) awaitCoordinators(all []*groupWatch, id int) {
	r.t.Helper()
	for end := time.Now().Add(settlePatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, node := range r.coordinators(all[0].cl, id, all) {
			if int(node) == id {
				return
			}
		}
	}
	r.t.Fatalf("broker %d gets no coordinators back\n%s", id, r.c.Logs())
}

// listed: tools that ask every broker find every group once, stable, with both members. Connections to a broker that was
// killed may break at the first use, and a coordinator may be about to move back.
func (r *run) listed(all []*groupWatch) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), settlePatience)
	defer cancel()
	problem := describeAll(ctx, all)
	for problem != nil && ctx.Err() == nil {
		was := problem
		pauseFor(ctx, 50*time.Millisecond)
		if problem = describeAll(ctx, all); ctx.Err() != nil {
			problem = was
		}
	}
	if problem != nil {
		r.t.Error(problem)
	}
}

func describeAll(ctx context.Context, all []*groupWatch) error {
	got, err := kadm.NewClient(all[0].cl).DescribeGroups(ctx)
	if err != nil {
		return fmt.Errorf("describe all groups: %w", err)
	}
	for _, g := range all {
		d, ok := got[g.name]
		if !ok || d.Err != nil || d.State != "Stable" || len(d.Members) != len(g.members) {
			return fmt.Errorf("%s is shown as %+v", g.name, d)
		}
	}
	return nil
}
