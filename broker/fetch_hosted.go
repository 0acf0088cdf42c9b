package broker

import (
	"context"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/queuemapper"
)

// readHosted reads for a consumer of a partition that another broker owns, in an older run that this broker has
// (skein.read.redirect, ADR 22): committed batches of that run, not beyond its end by the map (O21). For everything else,
// the end of its runs and what is wrong with them too, it sends the client back to the owner, without records and without an
// error: what does not exist only the owner may say. Most of all it never says OFFSET_OUT_OF_RANGE, after which some clients
// begin again at the start and others ask here for half an hour.
//
// False: this broker has nothing to do with the partition, or is about to own it; or redirects are off.
func (j *fetchJob) readHosted(ctx context.Context, f *fetchPart, left int, res *fetchResult) (bool, error) {
	b := j.b
	if !j.redirects(b.conf().ReadRedirect) {
		return false, nil
	}
	m := j.mapOf(ctx, f)
	rec := f.p.topic.newest()
	owner, l, ok := m.Owner(rec, f.index)
	if !ok || l == nil || l.Host == b.cfg.ID {
		return false, nil
	}
	first, ok := b.hostsOlder(m, rec, f.index)
	if !ok {
		return false, nil
	}
	if err := checkEpoch(ident.Epoch(f.leaderEpoch), owner.Generation.Epoch); err != nil {
		return true, err
	}
	out, from := &res.out, ident.Offset(f.offset)
	marks, known := j.marksOf(ctx, m, f, l.Host, owner)
	marks.Start = max(marks.Start, first)
	if known {
		out.HighWatermark, out.LastStableOffset, out.LogStartOffset = int64(marks.High), int64(marks.Stable), int64(marks.Start)
	}
	if j.req.IsolationLevel == 1 {
		out.AbortedTransactions = noneAborted
	}
	q, to := b.hostedRun(m, rec, f, from)
	if j.req.IsolationLevel == 1 {
		to = min(to, marks.Stable)
	}
	if !known || q == nil || from < marks.Start || from >= to || f.lastEpoch >= 0 {
		j.sendBack(f, res, l.Host)
		return true, nil
	}
	if left <= 0 && j.bytes > 0 {
		return true, nil
	}
	opt := commitlog.ReadOptions{From: from, To: to, MaxBytes: min(int(f.maxBytes), left), AtLeastOne: j.bytes == 0}
	err := q.Read(ctx, opt, &res.records)
	if ctx.Err() != nil {
		return true, context.Cause(ctx)
	}
	if err != nil || res.records.Bytes == 0 && opt.AtLeastOne {
		j.sendBack(f, res, l.Host)
		return true, nil
	}
	out.Records = res.records.Slices
	b.metrics.hostedBytes.Add(float64(res.records.Bytes))
	j.urgent = true // a sealed run grows no more: there is nothing to wait for
	return true, nil
}

// sendBack sends a client to the owner.
func (j *fetchJob) sendBack(f *fetchPart, res *fetchResult, owner ident.Broker) {
	if plants.endOutOfRange {
		res.out.Code, j.urgent = protocol.CodeOffsetOutOfRange, true
		return
	}
	f.hosted = time.Time{}
	j.sendTo(&res.out, owner, res)
	j.b.metrics.sentBack.Inc()
}

// mapOf returns the map; if the client knows a newer epoch of the partition than it, a newer map, as soon as there is one.
func (j *fetchJob) mapOf(ctx context.Context, f *fetchPart) *queuemapper.Map {
	known := ident.Epoch(f.leaderEpoch)
	caughtUp := func(m *queuemapper.Map) bool {
		owner, _, ok := m.Owner(f.p.topic.newest(), f.index)
		return !ok || known <= owner.Generation.Epoch
	}
	m := j.b.store.Map()
	if caughtUp(m) {
		return m
	}
	if j.awaitUntil.IsZero() {
		j.awaitUntil = time.Now().Add(openPatience)
	}
	ctx, cancel := context.WithDeadline(ctx, j.awaitUntil)
	defer cancel()
	_ = j.b.awaitTable(ctx, caughtUp) // or else the client's epoch is one that is not known here
	return j.b.store.Map()
}

// hostsOlder reports whether any older run of a partition lies in a log of this broker, and where the first run of all starts.
func (b *Broker) hostsOlder(m *queuemapper.Map, rec *queuemapper.Topic, index int32) (first ident.Offset, ok bool) {
	list := m.Runs(rec, index)
	for _, run := range list {
		if !run.Open && b.hosted[run.Log] != nil {
			return list[0].Start, true
		}
	}
	return 0, false
}

// hostedRun finds the older run in a log of this broker that holds an offset, and where what can be read of it ends; nil if
// there is none.
func (b *Broker) hostedRun(m *queuemapper.Map, rec *queuemapper.Topic, f *fetchPart, from ident.Offset) (*commitlog.Queue, ident.Offset) {
	run, ok := m.Locate(rec, f.index, from)
	if !ok || run.Open {
		return nil, 0
	}
	next, end := m.Readable(f.p.id(), run, from)
	if next > from {
		return nil, 0 // lost: the owner says so
	}
	host := b.hosted[run.Log]
	if host == nil {
		return nil, 0
	}
	q, ok := host.log.Sealed(run.Generation, f.p.id())
	if !ok {
		return nil, 0
	}
	return q, min(end, q.HighWatermark())
}
