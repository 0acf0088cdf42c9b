package broker

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/queuemapper"
)

// With skein.read.redirect a consumer that has much to read in another broker's log is sent there, as to the follower in
// its rack (KIP-392, ADR 22). This is the owner's side; fetch_hosted.go is the other one.
//
// A client need not go: it may not know that broker as a replica, or not reach it. So it is told once (toldTimes) for each
// stretch that it reads, and when it asks here again where it was told, or where it was served to since, it is served.

const (
	// toldMost bounds what is remembered of all connections; clients that there is no room for are not redirected.
	toldMost = 1 << 16
	// toldTimes is how often a client is told that stays here nevertheless, and toldAgain how long after the time before: what
	// it knows of brokers and replicas may be from before the move.
	toldTimes = 2
	toldAgain = 5 * time.Second
)

// told is what the client of a connection was told about partitions. It is owned by the goroutine that reads requests.
type told struct {
	runs map[ident.Partition]toldRun
	all  *atomic.Int64 // of all connections
}

// readAt is a broker that clients are sent to. One that comes back is another: clients are told again.
type readAt struct {
	id          ident.Broker
	incarnation int64
}

// toldRun is a redirect that was given.
type toldRun struct {
	host     readAt
	from, to ident.Offset // told at from; served here up to to since
	at       time.Time
	times    int
}

// may says whether a client that asks for an offset may be told to read it at host.
func (t *told) may(p ident.Partition, host readAt, from ident.Offset, now time.Time) bool {
	r, ok := t.runs[p]
	switch {
	case !ok:
		return t.all.Load() < toldMost
	case plants.tellAlways, r.host != host || from < r.from || from > r.to:
		return true // it went there, or elsewhere, and came back
	default:
		return r.times < toldTimes && now.Sub(r.at) >= toldAgain
	}
}

// tell remembers a redirect.
func (t *told) tell(p ident.Partition, host readAt, from ident.Offset, now time.Time) {
	was, ok := t.runs[p]
	if !ok {
		t.all.Add(1)
	}
	is := toldRun{host: host, from: from, to: from, at: now, times: 1}
	if ok && was.host == host && from >= was.from && from <= was.to {
		is.times += was.times
	}
	if t.runs == nil {
		t.runs = make(map[ident.Partition]toldRun)
	}
	t.runs[p] = is
}

// served notes that the client got what it was told to read elsewhere.
func (t *told) served(p ident.Partition, from, next ident.Offset) {
	if r, ok := t.runs[p]; ok && from >= r.from && from <= r.to {
		r.to = max(r.to, next)
		t.runs[p] = r
	}
}

// forget drops what the client has read.
func (t *told) forget(p ident.Partition) {
	if _, ok := t.runs[p]; ok {
		delete(t.runs, p)
		t.all.Add(-1)
	}
}

func (t *told) close() {
	t.all.Add(-int64(len(t.runs)))
	t.runs = nil
}

// redirects says whether the client of the request may be redirected at all.
func (j *fetchJob) redirects(conf bool) bool {
	return conf && j.version >= fetchRack && j.req.ReplicaID < 0
}

// redirect returns the broker that the client is to read from instead, at an offset in another broker's log. Transactions
// are not served as yet, so no run has an aborted one, and read_committed is no exception: TestRedirectCommitted.
func (j *fetchJob) redirect(ctx context.Context, f *fetchPart, from ident.Offset) (ident.Broker, bool) {
	b, conf := j.b, j.b.conf()
	if !j.redirects(conf.ReadRedirect) || f.p.topic.conf.Load().SkipAway { // a client that waits for a dead host skips nothing
		return 0, false
	}
	m, rec, now := b.store.Map(), f.p.topic.newest(), time.Now()
	run, ok := m.Locate(rec, f.index, from)
	if !ok || run.Open {
		return 0, false
	}
	if next, _ := m.Readable(f.p.id(), run, from); next > from {
		return 0, false // lost: it goes on behind that, from here
	}
	l := m.Log(run.Log)
	if l == nil || l.Host == b.cfg.ID || m.Broker(l.Host) == nil {
		return 0, false
	}
	host := readAt{l.Host, m.Broker(l.Host).Incarnation}
	if !j.conn.told.may(f.p.id(), host, from, now) {
		return 0, false
	}
	d := describer{b: b, m: m}
	at := d.place(f.p.topic, f.p, m.Assignments(rec.ID).Of(f.index))
	if !slices.Contains(at.inSync, int32(l.Host)) { // Java's clients go to replicas only
		return 0, false
	}
	if !b.leftThere(ctx, m, f.p, from, l.Host, max(conf.ReadRedirectMinBytes, 1)) {
		return 0, false
	}
	j.conn.told.tell(f.p.id(), host, from, now)
	b.metrics.redirected.Inc()
	return l.Host, true
}

// leftThere reports whether a partition has enough bytes from an offset on in runs at one other broker that follow one
// another, and any in the first.
func (b *Broker) leftThere(ctx context.Context, m *queuemapper.Map, p *partition, from ident.Offset, host ident.Broker, enough int64) bool {
	left := int64(0)
	for _, run := range m.Runs(p.topic.newest(), p.index) {
		if run.Open {
			return false
		}
		if run.End <= from {
			continue
		}
		if l := m.Log(run.Log); l == nil || l.Host != host {
			return false
		}
		segments, err := b.remote.Run(host, refOf(p, run)).Segments(ctx)
		if err != nil {
			return false
		}
		for _, s := range segments {
			if s.End <= from {
				continue
			}
			bytes := s.Bytes
			if s.First < from {
				bytes = int64(float64(bytes) * float64(s.End-from) / float64(s.End-s.First))
			}
			left += bytes
		}
		if left >= enough || left == 0 {
			return left > 0
		}
	}
	return false
}

// sendTo makes an answer that sends the client to another broker: no records, and at once, as it has nothing to wait for
// (KAFKA-13767).
func (j *fetchJob) sendTo(out *protocol.FetchResponsePartition, to ident.Broker, res *fetchResult) {
	res.records.Release()
	j.held -= res.reserved
	j.b.answers.Add(-res.reserved)
	res.remote, res.reserved = false, 0
	out.Records, out.PreferredReadReplica = nil, int32(to)
	j.urgent = true
}
