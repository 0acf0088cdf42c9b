package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// router writes to the partitions of a cluster whose leaders change: it goes where a refusal says that the leader is (KIP-951), asks for
// metadata when that is not said, when a connection breaks and while an answer is late, and sends again what was not acknowledged.
type router struct {
	topics Topics
	seeds  []string
	waits

	mu      sync.Mutex
	leaders []string // address by running number of the partition; "": none
	epochs  []int32  // of these leaders: what an older one says is not news
	links   map[lane]*link
	turn    int           // of the seeds
	fresh   chan struct{} // closed at the next metadata answer
	asking  bool

	refreshes int
}

// waits are how long a router waits for others.
type waits struct {
	dial     time.Duration // for a connection
	metadata time.Duration // for the answer to a metadata request, before another broker is asked
	late     time.Duration // for the answer to a batch, before somebody asks who leads
}

// usual is that of every router but a test's.
var usual = waits{dial: 300 * time.Millisecond, metadata: 500 * time.Millisecond, late: 150 * time.Millisecond}

// lane is one of a client's connections to a broker. Brokers that serve the requests of a connection one after the other must
// not make every partition wait for each other.
type lane struct {
	addr  string
	index int
}

// lanes are the connections to each broker that carry batches; metadata has one more.
const (
	lanes        = 8
	metadataLane = -1
)

func newRouter(seeds []string, topics Topics) *router {
	return &router{
		topics: topics, seeds: seeds, waits: usual, leaders: make([]string, topics.total()), epochs: make([]int32, topics.total()),
		links: map[lane]*link{}, fresh: make(chan struct{}),
	}
}

func (r *router) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.links {
		l.c.Close()
	}
}

// againAfter is the pause between two tries at the same broker; with another leader clients do not wait (KIP-951).
const againAfter = 5 * time.Millisecond

// refresh asks for metadata once, together with everybody else who asks now.
func (r *router) refresh(ctx context.Context) {
	r.mu.Lock()
	fresh := r.fresh
	if !r.asking {
		r.asking = true
		go r.ask(ctx)
	}
	r.mu.Unlock()
	select {
	case <-fresh:
	case <-ctx.Done():
	}
}

// ask goes round the brokers until one answers.
func (r *router) ask(ctx context.Context) {
	var found []leading
	for found == nil && ctx.Err() == nil {
		k := r.nextSeed()
		var err error
		if found, err = r.metadata(ctx, r.seeds[k]); err != nil {
			r.mu.Lock()
			r.turn = k + 1
			r.mu.Unlock()
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refreshes++
	r.asking = false
	for i, l := range found {
		r.learn(i, l)
	}
	close(r.fresh)
	r.fresh = make(chan struct{})
}

// nextSeed is the broker to be asked: as Kafka's clients do, one that there is a connection to rather than one that may be about to start
// or to stop.
func (r *router) nextSeed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.seeds {
		k := (r.turn + i) % len(r.seeds)
		for n := metadataLane; n < lanes; n++ {
			if l := r.links[lane{r.seeds[k], n}]; l != nil && !l.dead() {
				return k
			}
		}
	}
	return r.turn % len(r.seeds)
}

// leading is who leads a partition, as somebody says.
type leading struct {
	addr  string // "": nobody
	epoch int32  // -1: not said
}

// learn takes over what is not older than what is known. The caller holds mu.
func (r *router) learn(i int, l leading) {
	if l.epoch < 0 || l.epoch >= r.epochs[i] {
		r.leaders[i], r.epochs[i] = l.addr, max(l.epoch, r.epochs[i])
	}
}

func (r *router) metadata(ctx context.Context, addr string) ([]leading, error) {
	rq := kmsg.NewPtrMetadataRequest()
	rq.Version = 9
	for i := range r.topics.Count {
		name, _ := r.topics.at(i * r.topics.Partitions)
		rq.Topics = append(rq.Topics, kmsg.MetadataRequestTopic{Topic: &name})
	}
	l, err := r.link(ctx, lane{addr, metadataLane})
	if err != nil {
		return nil, err
	}
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID))
	ch, err := l.send(func(c net.Conn, correlation int32) error {
		_, err := c.Write(f.AppendRequest(nil, rq, correlation))
		return err
	})
	if err != nil {
		return nil, err
	}
	select {
	case body, ok := <-ch:
		if !ok {
			return nil, errLinkBroken
		}
		rs := kmsg.NewPtrMetadataResponse()
		rs.Version = rq.Version
		if len(body) < 1 {
			return nil, errShort
		}
		if err := rs.ReadFrom(body[1:]); err != nil {
			return nil, err
		}
		return r.leadersOf(rs), nil
	case <-time.After(r.waits.metadata):
		return nil, errors.New("metadata: no answer")
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (r *router) leadersOf(rs *kmsg.MetadataResponse) []leading {
	addr := map[int32]string{}
	for _, b := range rs.Brokers {
		addr[b.NodeID] = fmt.Sprintf("%s:%d", b.Host, b.Port)
	}
	index := map[string]int{}
	for i := range r.topics.Count {
		name, _ := r.topics.at(i * r.topics.Partitions)
		index[name] = i * r.topics.Partitions
	}
	out := make([]leading, r.topics.total())
	for i := range out {
		out[i].epoch = -1
	}
	for _, t := range rs.Topics {
		if t.Topic == nil {
			continue
		}
		base, ok := index[*t.Topic]
		if !ok {
			continue
		}
		for _, p := range t.Partitions {
			if p.Leader >= 0 && p.Partition >= 0 && int(p.Partition) < r.topics.Partitions {
				out[base+int(p.Partition)] = leading{addr[p.Leader], p.LeaderEpoch}
			}
		}
	}
	return out
}

// link is the connection to a broker, made if needed.
func (r *router) link(ctx context.Context, at lane) (*link, error) {
	r.mu.Lock()
	l := r.links[at]
	r.mu.Unlock()
	if l != nil && !l.dead() {
		return l, nil
	}
	l, err := newLink(ctx, at.addr, r.waits.dial)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if was := r.links[at]; was != nil && !was.dead() { // somebody else was faster
		l.c.Close()
		return was, nil
	}
	r.links[at] = l
	return l, nil
}

// routes are the partitions by leader, as last heard.
func (r *router) routes() []Route {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := map[string]int{}
	var out []Route
	for i, addr := range r.leaders {
		if addr == "" {
			continue
		}
		k, ok := at[addr]
		if !ok {
			k = len(out)
			at[addr] = k
			out = append(out, Route{Addr: addr})
		}
		out[k].Partitions = append(out[k].Partitions, i)
	}
	return out
}

// byLeader splits a list; what has no leader comes back apart.
func (r *router) byLeader(list []int) (led map[string][]int, orphans []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	led = map[string][]int{}
	for _, i := range list {
		if addr := r.leaders[i]; addr == "" {
			orphans = append(orphans, i)
		} else {
			led[addr] = append(led[addr], i)
		}
	}
	return led, orphans
}

// allMoved reports whether every listed partition has another leader than led says.
func (r *router) allMoved(list []int, led map[string][]int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for addr, parts := range led {
		for _, i := range parts {
			if r.leaders[i] == addr && slices.Contains(list, i) {
				return false
			}
		}
	}
	return !slices.ContainsFunc(list, func(i int) bool { return r.leaders[i] == "" })
}

func (r *router) leaderIs(i int, addr string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leaders[i] == addr
}

// maxParts bounds the partitions of one request.
const maxParts = 1000

// write gets the batch acknowledged by every listed partition and returns how many tries were refused or lost on the way.
func (r *router) write(ctx context.Context, list []int, batch []byte) (refused int, err error) {
	for len(list) > 0 {
		led, left := r.byLeader(list)
		var mu sync.Mutex
		var wg sync.WaitGroup
		for addr, parts := range led {
			for len(parts) > 0 {
				n := min(len(parts), maxParts)
				chunk := parts[:n]
				parts = parts[n:]
				wg.Go(func() {
					again := r.try(ctx, addr, chunk, batch)
					mu.Lock()
					left = append(left, again...)
					mu.Unlock()
				})
			}
		}
		wg.Wait()
		if ctx.Err() != nil {
			return refused, context.Cause(ctx)
		}
		if len(left) > 0 {
			refused++
			if !r.allMoved(left, led) {
				begun := time.Now()
				r.refresh(ctx)
				if wait := againAfter - time.Since(begun); wait > 0 && !r.allMoved(left, led) {
					time.Sleep(wait)
				}
			}
		}
		list = left
	}
	return refused, nil
}

// try sends one request and returns the partitions that did not acknowledge it.
func (r *router) try(ctx context.Context, addr string, list []int, batch []byte) (again []int) {
	l, err := r.link(ctx, lane{addr, list[0] % lanes})
	if err != nil {
		return list
	}
	pt := templateFor(r.topics, list, -1, batch)
	pt.setVersion(routedVersion)
	ch, err := l.send(func(c net.Conn, correlation int32) error {
		var scratch net.Buffers
		return pt.write(c, correlation, &scratch)
	})
	if err != nil {
		return list
	}
	late := time.NewTicker(r.waits.late)
	defer late.Stop()
	for {
		select {
		case body, ok := <-ch:
			if !ok {
				return list
			}
			return r.unacknowledged(body, list)
		case <-late.C:
			r.refresh(ctx)
			if !r.leaderIs(list[0], addr) {
				return list
			}
		case <-ctx.Done():
			return list
		}
	}
}

// routedVersion is the first version of Produce whose refusals say who leads.
const routedVersion = 10

// unacknowledged returns the partitions that did not take the batch, and learns who leads them if the answer says so.
func (r *router) unacknowledged(body []byte, list []int) (again []int) {
	rs := kmsg.NewPtrProduceResponse()
	rs.Version = routedVersion
	if len(body) < 1 || rs.ReadFrom(body[1:]) != nil {
		return list
	}
	type key struct {
		topic string
		index int32
	}
	addr := map[int32]string{}
	for _, b := range rs.Brokers {
		addr[b.NodeID] = fmt.Sprintf("%s:%d", b.Host, b.Port)
	}
	good, led := map[key]bool{}, map[key]leading{}
	for _, t := range rs.Topics {
		for _, p := range t.Partitions {
			k := key{t.Topic, p.Partition}
			if good[k] = p.ErrorCode == 0; !good[k] && addr[p.CurrentLeader.LeaderID] != "" {
				led[k] = leading{addr[p.CurrentLeader.LeaderID], p.CurrentLeader.LeaderEpoch}
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range list {
		name, p := r.topics.at(i)
		k := key{name, p}
		if l, ok := led[k]; ok {
			r.learn(i, l)
		}
		if !good[k] {
			again = append(again, i)
		}
	}
	return again
}

// all lists every partition.
func (r *router) all() []int {
	out := make([]int, r.topics.total())
	for i := range out {
		out[i] = i
	}
	return out
}
