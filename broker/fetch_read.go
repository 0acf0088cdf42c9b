package broker

import (
	"context"
	"errors"
	"github.com/skeinmq/skein/broker/runs"
	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/protocol/record"
	"time"
)

// pass looks at every ready part once, within the request's limits, and fills results.
func (j *fetchJob) pass(ctx context.Context) {
	j.unpin()
	left := min(int(j.req.MaxBytes), j.b.fetchMaxBytes)
	if j.full {
		for _, f := range j.set.order {
			left -= j.look(ctx, f, left)
		}
		return
	}
	var next *fetchPart
	for f := j.set.first; f != nil; f = next {
		next = f.next // look may take f out of the list
		if left <= 0 && j.bytes > 0 {
			return // the others stay ready
		}
		left -= j.look(ctx, f, left)
	}
}

// look fills a result for one part and returns the bytes of records in it.
func (j *fetchJob) look(ctx context.Context, f *fetchPart, left int) int {
	n := len(j.results)
	j.results = resize(j.results, n+1)
	res := &j.results[n]
	res.part, res.remote, res.reserved, res.later = f, false, 0, false
	res.out.Records = nil
	res.out.Reset(f.index)
	if j.bytes > 0 && j.b.answers.Load() >= j.b.answersLimit {
		left = 0 // a smaller answer, while the budget is spent
	}
	queue, err := j.read(ctx, f, left, res)
	// A watch that began only now may have missed a change, even a move to another queue: look again until what was
	// looked at was being watched.
	for err == nil && len(res.out.Records) == 0 && !res.out.Diverging.Known && queue != nil && f.watch(queue) {
		queue, err = j.read(ctx, f, left, res)
	}
	if err != nil {
		if ctx.Err() != nil && f.p != nil {
			err = runs.ErrAway // the connection or the broker ends: nothing is wrong with the partition
		}
		j.fail(f, res, err)
		return 0
	}
	if res.out.Diverging.Known {
		j.urgent = true
	}
	j.bytes += res.records.Bytes
	if !f.news(&res.out) && left > 0 && !res.later && queue != nil && queue.Open() {
		j.set.pull(f) // nothing to tell until the watch says so
	}
	return res.records.Bytes
}

// fail puts an error into a part's result. What is wrong is told at once.
func (j *fetchJob) fail(f *fetchPart, res *fetchResult, err error) {
	res.records.Release()
	res.out.Records = nil
	res.out.Reset(f.index)
	res.out.Code = codeOf(err)
	if away := errors.Is(err, runs.ErrAway); away && f.p != nil { // nothing that a client can do about: it need not come back sooner
		if run := f.p.open.Load(); run != nil {
			res.out.HighWatermark, res.out.LastStableOffset = int64(run.queue.HighWatermark()), int64(run.queue.LastStable())
			res.out.LogStartOffset = int64(run.queue.LogStart())
			if !errors.Is(err, errAbsent) {
				j.away = true
				res.out.Code = protocol.CodeNone // it waits, as at the end: an error would make it pause when the log is back
			}
		}
	} else {
		j.urgent = true
	}
	if j.code == protocol.CodeNone {
		j.code = res.out.Code
	}
	if j.version >= 16 && f.p != nil && (res.out.Code == protocol.CodeNotLeaderOrFollower || res.out.Code == protocol.CodeFencedLeaderEpoch) {
		if node, leader, ok := j.b.leaderOf(f.p.topic, f.index); ok {
			res.out.CurrentLeader = leader
			j.nameNode(node)
		}
	}
}

func (j *fetchJob) nameNode(node protocol.NodeEndpoint) {
	for _, n := range j.resp.Nodes {
		if n.NodeID == node.NodeID {
			return
		}
	}
	j.resp.Nodes = append(j.resp.Nodes, node)
}

// resolve finds the partition behind a part: again, when its topic was deleted.
func (j *fetchJob) resolve(f *fetchPart) error {
	if f.p != nil && !f.p.topic.deleted.Load() {
		return nil
	}
	f.p = nil
	f.unwatch()
	var t *topic
	if j.byIDs {
		if t = j.b.topicByID(ident.Topic(f.id)); t == nil {
			return refuseCode(protocol.CodeUnknownTopicID)
		}
	} else {
		t = j.b.topic(f.name)
	}
	if t == nil {
		return refuseCode(protocol.CodeUnknownTopicOrPartition)
	}
	if f.p = t.partition(f.index); f.p == nil {
		return refuseCode(protocol.CodeUnknownTopicOrPartition)
	}
	return nil
}

// read fills a result with the partition's marks and at most left bytes of records, or the one batch that must be
// returned in any case. It returns the open queue, which is the one to wait for.
func (j *fetchJob) read(ctx context.Context, f *fetchPart, left int, res *fetchResult) (*commitlog.Queue, error) {
	if f.isInternal() {
		return nil, j.readInternal(f, res)
	}
	if err := j.resolve(f); err != nil {
		return nil, err
	}
	run := f.p.open.Load()
	if run == nil {
		if mine, err := j.readHosted(ctx, f, left, res); mine || err != nil {
			return nil, err
		}
	}
	if run == nil || ident.Epoch(f.leaderEpoch) > run.gen.Epoch {
		if j.awaitUntil.IsZero() {
			j.awaitUntil = time.Now().Add(openPatience)
		}
		run = j.b.awaitOpen(ctx, f.p, ident.Epoch(f.leaderEpoch), j.awaitUntil)
	}
	if run == nil {
		return nil, commitlog.ErrNotOpen
	}
	if err := checkEpoch(ident.Epoch(f.leaderEpoch), run.gen.Epoch); err != nil {
		return nil, err
	}
	q, out := run.queue, &res.out
	// The log start is read first and the high watermark last, so that they never seem to cross.
	start := q.LogStart()
	stable := q.LastStable()
	high := q.HighWatermark()
	from, upper := ident.Offset(f.offset), high
	if j.req.IsolationLevel == 1 {
		upper = stable
	}
	if from > high || ident.Epoch(f.lastEpoch) > run.gen.Epoch {
		if err := j.confirm(ctx, run); err != nil {
			return nil, err
		}
	}
	if f.lastEpoch >= 0 {
		if diverged, err := j.b.divergence(f, run, start, high); err != nil || diverged.Known {
			out.Diverging = diverged
			out.HighWatermark, out.LastStableOffset, out.LogStartOffset = int64(high), int64(stable), int64(start)
			return q, err
		}
	}
	if from < start || from > high {
		return nil, refuse(protocol.CodeOffsetOutOfRange, "offset %d is not between %d and %d", from, start, high)
	}
	out.HighWatermark, out.LastStableOffset, out.LogStartOffset = int64(high), int64(stable), int64(start)
	if j.req.IsolationLevel == 1 && j.version >= 4 {
		out.AbortedTransactions = noneAborted
	}
	if from >= upper || left <= 0 && j.bytes > 0 {
		return q, nil
	}
	return j.readRecords(ctx, f, run, commitlog.ReadOptions{
		From: from, To: upper, MaxBytes: min(int(f.maxBytes), left), AtLeastOne: j.bytes == 0,
	}, res)
}

// readRecords is the part of read that reads, from a range that has records. Where the client is to read elsewhere there is
// nothing to wait for.
func (j *fetchJob) readRecords(ctx context.Context, f *fetchPart, run *openRun, opt commitlog.ReadOptions, res *fetchResult) (*commitlog.Queue, error) {
	q, out, from := run.queue, &res.out, opt.From
	if from >= q.Start() {
		j.conn.told.forget(f.p.id())
	} else if j.b.isRemote(f.p, from) {
		if !j.mayAsk(&opt, res) {
			return q, nil
		}
		if to, ok := j.redirect(ctx, f, from); ok {
			j.sendTo(out, to, res)
			return nil, nil
		}
	}
	if err := j.b.readRun(ctx, f.p, run, opt, &res.records); err != nil {
		if errors.Is(err, commitlog.ErrOutOfRange) && from >= q.LogStart() {
			return q, nil // nothing there as yet
		}
		return nil, err
	}
	if res.remote {
		j.holdRemote(res)
		j.conn.told.served(f.p.id(), from, res.records.Next)
	}
	out.Records = res.records.Slices
	return q, j.convert(f, res)
}

// confirm is Broker.confirm, once for all partitions of a group, for as long as one takes at most.
func (j *fetchJob) confirm(ctx context.Context, run *openRun) error {
	if err, known := j.confirmed[run.gen]; known {
		return err
	}
	if j.confirmUntil.IsZero() {
		j.confirmUntil = time.Now().Add(confirmPatience)
		j.confirmed = make(map[ident.Generation]error)
	}
	ctx, cancel := context.WithDeadline(ctx, j.confirmUntil)
	defer cancel()
	err := j.b.confirm(ctx, run)
	j.confirmed[run.gen] = err
	return err
}

// noneAborted is the list of aborted transactions of a read_committed answer while there are no transactions.
var noneAborted = []protocol.AbortedTransaction{}

// checkEpoch compares the leader epoch that a client believes in with ours (KIP-320); -1 is a client that does not say.
func checkEpoch(client, ours ident.Epoch) error {
	switch {
	case client < 0 || client == ours:
		return nil
	case client < ours:
		return refuseCode(protocol.CodeFencedLeaderEpoch)
	default:
		return refuseCode(protocol.CodeUnknownLeaderEpoch)
	}
}

// divergence compares the epoch of the last record that the client has with the partition's history (KIP-595).
func (b *Broker) divergence(f *fetchPart, run *openRun, start, high ident.Offset) (protocol.EpochEnd, error) {
	epoch, end, ok := b.epochEnd(f.p, run, ident.Epoch(f.lastEpoch), high)
	if !ok {
		return protocol.EpochEnd{}, refuse(protocol.CodeOffsetOutOfRange, "epoch %d of the last record is not known", f.lastEpoch)
	}
	if ident.Offset(f.offset) < start {
		return protocol.EpochEnd{}, refuse(protocol.CodeOffsetOutOfRange, "offset %d is below the log start %d", f.offset, start)
	}
	if epoch < ident.Epoch(f.lastEpoch) || int64(end) < f.offset {
		return protocol.EpochEnd{Epoch: int32(epoch), EndOffset: int64(end), Known: true}, nil
	}
	return protocol.EpochEnd{}, nil
}

// Versions of Fetch at which what a client can read changes.
const (
	fetchMagic1 = 2
	fetchMagic2 = 4
	fetchZstd   = 10
	fetchRack   = 11
)

// convert turns records into what the version's clients can read.
func (j *fetchJob) convert(f *fetchPart, res *fetchResult) error {
	if j.version >= fetchZstd || len(res.out.Records) == 0 {
		return nil
	}
	if j.version >= fetchMagic2 {
		for _, s := range res.records.Slices {
			if hasZstd(s) {
				return refuseCode(protocol.CodeUnsupportedCompressionType)
			}
		}
		return nil
	}
	magic := int8(0)
	if j.version >= fetchMagic1 {
		magic = 1
	}
	var old []byte
	for _, s := range res.records.Slices {
		var err error
		if old, err = record.DownConvert(old, s, magic, f.offset, 0); err != nil {
			return refuse(codeOf(err), "convert records for fetch v%d: %v", j.version, err)
		}
	}
	res.out.Records = append(res.out.Records[:0:0], old)
	return nil
}

// hasZstd reports whether a batch among whole batches is compressed with zstd.
func hasZstd(batches []byte) bool {
	for len(batches) > 0 {
		h, err := record.ParseHeader(batches)
		if err != nil {
			return false
		}
		if h.Attributes.Codec() == record.Zstd {
			return true
		}
		batches = batches[h.Size():]
	}
	return false
}
