package broker

import (
	"context"
	"sync"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
)

// Fetch (key 1), v0 to v18.
//
// What is there is answered at once; else the request waits until min_bytes are there, something is wrong, or
// max_wait is over. Records are slices of the log's own memory, pinned until they have been written. The records of
// one partition in one answer come from one run (generation): a reader that crosses from an older run to the next
// does so with its next request and does not notice.
//
// One batch is always returned whole, also if it alone exceeds the limits, in every version (KIP-74; Apache Kafka up
// to v2 cut it off). v0 to v3, which Apache Kafka 4 no longer serves, get their old message formats. Followers do not
// exist here: replica ids are ignored, and so is the rack. With skein.read.redirect consumers of v11 and later are sent to
// the broker that has an older run, and read there (redirect.go, fetch_hosted.go, ADR 22).
//
//	v3  + max bytes            v4  isolation level, format 2, aborted transactions
//	v5  + log start            v7  sessions (KIP-227)
//	v9  leader epoch           v10 zstd
//	v11 rack                   v12 flexible, diverging epoch
//	v13 topic ids              v16 node endpoints (KIP-951)
var fetch = handler{
	key: keyFetch, name: "Fetch", min: 0, max: 18,
}

// fetchJob is one Fetch request. Jobs are pooled.
type fetchJob struct {
	b       *Broker
	conn    *conn
	version int16
	byIDs   bool
	full    bool // the answer names every partition
	session *session
	set     *fetchSet

	req     protocol.FetchRequest
	resp    protocol.FetchResponse
	enc     protocol.FetchEncoder
	results []fetchResult
	timer   *time.Timer

	awaitUntil time.Time // zero: no partition was waited for that is about to be opened
	held       int64     // bytes of results that count in the broker's answers already
	askUntil   time.Time // zero: no other broker was asked in this pass

	hostedAt     time.Time // when the first partition was looked at that another broker owns; zero: none was
	confirmUntil time.Time // zero: nothing had to be confirmed in this request
	confirmed    map[ident.Generation]error

	bytes  int  // of records in results
	urgent bool // a result must not wait
	away   bool // a result waits for another broker, which wakes nobody when it is back
	code   protocol.Code
}

// fetchResult is what a pass found about one part.
type fetchResult struct {
	part    *fetchPart
	out     protocol.FetchResponsePartition
	records commitlog.Records
	remote  bool // another broker is asked
	// reserved is what the read counts in the budget of answers before its bytes are there.
	reserved int64
	later    bool // there is more, left for the next answer
}

var fetchJobs = sync.Pool{New: func() any { return &fetchJob{timer: stoppedTimer()} }}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// fetch answers a Fetch request. The pipeline is empty.
func (c *conn) fetch(ctx context.Context, in inbound, body []byte) error {
	j := fetchJobs.Get().(*fetchJob)
	defer j.release()
	j.b, j.conn, j.version, j.awaitUntil = c.b, c, c.header.Version, time.Time{}
	j.confirmUntil, j.confirmed, j.hostedAt = time.Time{}, nil, time.Time{}
	if err := j.req.Decode(body, j.version); err != nil {
		return err
	}
	if err := j.begin(ctx); err != nil {
		if ctx.Err() != nil {
			return err
		}
		j.code = codeOf(err)
		j.resp = protocol.FetchResponse{Code: j.code, Topics: j.resp.Topics[:0]}
		return j.answer(c, in)
	}
	defer j.finish()
	if err := j.collect(ctx, c); err != nil {
		return err
	}
	defer j.unpin()
	j.buildResponse()
	return j.answer(c, in)
}

// awayLook is how often a request that waits for another broker tries again.
const awayLook = 200 * time.Millisecond

// collect makes passes over the ready parts until the request may be answered.
func (j *fetchJob) collect(ctx context.Context, c *conn) error {
	wait := time.Duration(j.req.MaxWaitMillis) * time.Millisecond
	deadline := time.Now().Add(wait)
	held := false
	for {
		j.set.collect()
		j.pass(ctx)
		if !held && j.allFailed() {
			held = true
			if d := c.sour.add(time.Now(), false); j.urgent && d > 0 && ctx.Err() == nil {
				j.hold(ctx, d)
				continue
			}
		}
		if !j.allFailed() {
			c.sour.clear()
		}
		if j.urgent || j.bytes >= int(j.req.MinBytes) || wait <= 0 || len(j.set.byKey) == 0 {
			return nil
		}
		left := time.Until(deadline)
		if left <= 0 || ctx.Err() != nil {
			return nil
		}
		look := left
		if j.away {
			look = min(left, awayLook)
		}
		j.unpin() // a waiting client must not hold the log's memory
		c.watchPeer()
		j.timer.Reset(look)
		select {
		case <-j.set.wake:
			j.timer.Stop()
		case <-j.timer.C:
			if look == left {
				wait = 0 // one more pass, then answer
			}
		case <-ctx.Done():
			j.timer.Stop()
			if context.Cause(ctx) == errPeerGone {
				return errPeerGone
			}
			wait = 0 // the broker drains: answer with what there is
		}
	}
}

// hold waits a little with an answer of errors, unless one of the other partitions has news.
func (j *fetchJob) hold(ctx context.Context, d time.Duration) {
	j.timer.Reset(d)
	select {
	case <-j.set.wake:
	case <-j.timer.C:
	case <-ctx.Done():
	}
	j.timer.Stop()
}

// answer writes the response.
func (j *fetchJob) answer(c *conn, in inbound) error {
	bufs, total, err := j.enc.Encode(&j.resp, j.version, c.header.CorrelationID)
	if err != nil {
		return err
	}
	held := int64(total) - j.held
	c.b.answers.Add(held)
	err = c.write(bufs)
	c.b.answers.Add(-held)
	j.enc.Release()
	c.b.metrics.observe(keyFetch, j.code, time.Since(in.start))
	return err
}

// unpin lets go of all records.
func (j *fetchJob) unpin() {
	for i := range j.results {
		j.results[i].records.Release()
		j.results[i].part = nil
	}
	j.results = j.results[:0]
	j.b.answers.Add(-j.held)
	j.held, j.askUntil = 0, time.Time{}
	j.resp.Nodes = j.resp.Nodes[:0]
	j.bytes, j.urgent, j.away, j.code = 0, false, false, protocol.CodeNone
}

func (j *fetchJob) release() {
	j.b, j.conn, j.full, j.code = nil, nil, false, protocol.CodeNone
	j.resp.Nodes = j.resp.Nodes[:0]
	fetchJobs.Put(j)
}

// buildResponse groups the results by topic and remembers in the session what the client is told.
func (j *fetchJob) buildResponse() {
	r := &j.resp
	*r = protocol.FetchResponse{Topics: r.Topics[:0], Nodes: r.Nodes}
	if j.session != nil && (!j.full || j.req.SessionEpoch == sessionEpochFull) {
		r.SessionID = j.session.id
	}
	for i := range j.results {
		res := &j.results[i]
		f := res.part
		if !j.full && !f.news(&res.out) {
			continue
		}
		f.toldHigh, f.toldStart = res.out.HighWatermark, res.out.LogStartOffset
		n := len(r.Topics)
		if n == 0 || r.Topics[n-1].Name != f.name || r.Topics[n-1].ID != f.id {
			r.Topics = resize(r.Topics, n+1)
			t := &r.Topics[n]
			t.Name, t.ID, t.Partitions = f.name, f.id, t.Partitions[:0]
			n++
		}
		t := &r.Topics[n-1]
		t.Partitions = append(t.Partitions, res.out)
		if len(res.out.Records) > 0 {
			j.set.rotate(f)
		}
	}
}

// news reports whether an incremental answer must name the partition (KIP-227).
func (f *fetchPart) news(out *protocol.FetchResponsePartition) bool {
	return len(out.Records) > 0 || out.Code != protocol.CodeNone || out.Diverging.Known || out.PreferredReadReplica >= 0 ||
		out.HighWatermark != f.toldHigh || out.LogStartOffset != f.toldStart
}
