package broker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/protocol/record"
)

// Produce (key 0), v0 to v13.
//
// A request's batches enter each log together, and its answer leaves when all are committed: durable, witnessed,
// visible. acks=1 and acks=all are the same; acks=0 takes the same path and gets no answer, but like Kafka's a
// connection whose acks=0 request fails is closed. The request's timeout is not used: a commit takes milliseconds, or
// the log is given up. Topics are never created here (Metadata does that). Transactional batches are refused until
// transactions are served. A disk that runs full slows its producers down (throttle.go).
//
// v0 to v2 (message formats 0 and 1), which Apache Kafka 4 advertises but no longer serves, are served.
//
//	v1  + throttle time            v2  + log append time in the answer
//	v3  transactional id, format 2 v5  + log start
//	v7  zstd                       v8  + record errors (KIP-467)
//	v9  flexible                   v10 + current leader (KIP-951)
//	v12 KIP-890                    v13 topic ids
var produce = handler{
	key: keyProduce, name: "Produce", min: 0, max: 13,
}

// produceJob is one Produce request on its way: decoded, in the log, answered. Jobs are pooled, so that a warm one
// costs no allocation. The reading goroutine owns it until the batches are in the log, then nobody does until done;
// then the connection's writer.
type produceJob struct {
	conn        *conn
	in          inbound
	version     int16
	correlation int32
	noReply     bool
	failed      bool
	code        protocol.Code // first error, for metrics

	req  protocol.ProduceRequest
	resp protocol.ProduceResponse
	logs []produceLog
	// awaitUntil is how long the request waits for partitions that are about to be opened; zero: it has met none.
	awaitUntil time.Time
	// rules are those of the batch being checked.
	rules record.Rules

	left   atomic.Int32 // logs that have not called back, and one for the reading goroutine
	done   atomic.Bool
	onDone func(*commitlog.Append)
}

// produceLog is the part of a request that goes to one log.
type produceLog struct {
	host   *hostedLog
	append commitlog.Append
	slots  []produceSlot // of each batch
}

// produceSlot says where a batch's result belongs.
type produceSlot struct {
	topic, part int
	p           *partition
	appendTime  int64 // -1: the topic keeps the producer's timestamps
}

var produceJobs = sync.Pool{New: func() any { return new(produceJob) }}

// produce takes a Produce request in and lets the log go on with it.
func (c *conn) produce(ctx context.Context, in inbound, body []byte) error {
	j := produceJobs.Get().(*produceJob)
	if j.onDone == nil {
		j.onDone = j.appended
	}
	j.conn, j.in, j.version, j.correlation = c, in, c.header.Version, c.header.CorrelationID
	if err := j.req.Decode(body, j.version); err != nil {
		j.release()
		return err
	}
	c.drainPipeline(maxPipelined - 1)
	j.noReply = j.req.Acks == 0
	j.prepare(ctx)
	c.mute = j.throttle()
	j.resp.ThrottleMillis = int32(c.mute.Milliseconds())
	j.left.Store(int32(len(j.logs)) + 1)
	c.enqueue(j)
	for i := range j.logs {
		l := &j.logs[i]
		l.append.Done = j.onDone
		l.host.log.Append(&l.append)
	}
	j.appended(nil)
	return nil
}

// appended is told that one log has committed or refused its part. It runs on the log's completing goroutine.
func (j *produceJob) appended(*commitlog.Append) {
	if j.left.Add(-1) == 0 {
		c := j.conn
		j.done.Store(true) // from here on the connection's writer may have released it
		c.completed()
	}
}

// prepare checks the request and sorts its batches by log. What is refused has its code in resp already.
func (j *produceJob) prepare(ctx context.Context) {
	b := j.conn.b
	j.awaitUntil = time.Time{}
	now := time.Now().UnixMilli()
	refusal := protocol.CodeNone
	if j.req.Acks < -1 || j.req.Acks > 1 {
		refusal = protocol.CodeInvalidRequiredAcks
	}
	j.resp.Topics = resize(j.resp.Topics, len(j.req.Topics))
	for i := range j.req.Topics {
		from, to := &j.req.Topics[i], &j.resp.Topics[i]
		to.Name, to.ID = from.Name, from.ID
		to.Partitions = resize(to.Partitions, len(from.Partitions))
		t, missing := j.topic(b, from)
		for k := range from.Partitions {
			out := &to.Partitions[k]
			*out = protocol.ProduceResponsePartition{
				Index: from.Partitions[k].Index, BaseOffset: -1, LogAppendTime: -1, LogStartOffset: -1,
			}
			switch {
			case refusal != protocol.CodeNone:
				j.refuse(out, refusal, "")
			case t == nil:
				j.refuse(out, missing, "")
			default:
				j.addBatch(ctx, t, i, k, now)
			}
		}
	}
}

// topic finds the topic of a request, or says what is wrong with it.
func (j *produceJob) topic(b *Broker, from *protocol.ProduceTopic) (*topic, protocol.Code) {
	if j.version >= produceTopicIDs {
		if t := b.topicByID(ident.Topic(from.ID)); t != nil {
			return t, protocol.CodeNone
		}
		return nil, protocol.CodeUnknownTopicID
	}
	if isInternal(from.Name) {
		return nil, protocol.CodeInvalidTopicException
	}
	if t := b.topic(from.Name); t != nil {
		return t, protocol.CodeNone
	}
	return nil, protocol.CodeUnknownTopicOrPartition
}

// addBatch checks the data for one partition and puts it into the append for its log.
func (j *produceJob) addBatch(ctx context.Context, t *topic, topicAt, partAt int, now int64) {
	from, out := &j.req.Topics[topicAt].Partitions[partAt], &j.resp.Topics[topicAt].Partitions[partAt]
	p := t.partition(from.Index)
	if p == nil {
		j.refuse(out, protocol.CodeUnknownTopicOrPartition, "")
		return
	}
	run := p.open.Load()
	if run == nil {
		if j.awaitUntil.IsZero() {
			j.awaitUntil = time.Now().Add(openPatience)
		}
		run = j.conn.b.awaitOpen(ctx, p, -1, j.awaitUntil)
	}
	if run == nil {
		j.refuse(out, protocol.CodeNotLeaderOrFollower, "")
		return
	}
	slot := produceSlot{topic: topicAt, part: partAt, p: p, appendTime: -1}
	batch, ok := j.check(t.conf.Load(), from.Records, out, &slot, now)
	if !ok {
		return
	}
	batch.Queue = run.queue
	l := j.logFor(run.log)
	l.append.Batches = append(l.append.Batches, batch)
	l.slots = append(l.slots, slot)
}

// logFor returns the part of the request that goes to a log. A request touches few logs.
func (j *produceJob) logFor(host *hostedLog) *produceLog {
	for i := range j.logs {
		if j.logs[i].host == host {
			return &j.logs[i]
		}
	}
	j.logs = resize(j.logs, len(j.logs)+1)
	l := &j.logs[len(j.logs)-1]
	l.host, l.append.Batches, l.slots = host, l.append.Batches[:0], l.slots[:0]
	return l
}

// refuse puts an error into a partition's answer.
func (j *produceJob) refuse(out *protocol.ProduceResponsePartition, code protocol.Code, text string) {
	out.Code, out.BaseOffset, out.Message = code, -1, text
	j.failed = true
	if j.code == protocol.CodeNone {
		j.code = code
	}
}

// appendAnswer appends the frame of the answer, or nothing if none is wanted.
func (j *produceJob) appendAnswer(dst []byte) []byte {
	for i := range j.logs {
		l := &j.logs[i]
		for k := range l.append.Batches {
			batch := &l.append.Batches[k]
			j.settle(&batch.Result, &l.slots[k])
			// What a full disk refused counts as well: nothing else tells the balancer that somebody writes there.
			if batch.Result.Err == nil || errors.Is(batch.Result.Err, commitlog.ErrFull) {
				j.conn.b.loads.appended(batch.Queue.Generation().Group, batch.Queue.Partition(), len(batch.Data))
			}
		}
	}
	if j.noReply {
		return dst
	}
	if j.failed && j.version >= 10 {
		j.nameLeaders()
	}
	start := len(dst)
	dst = protocol.AppendFrameSize(dst)
	dst = protocol.AppendResponseHeader(dst, protocol.KeyProduce, j.version, j.correlation)
	dst = j.resp.AppendTo(dst, j.version)
	protocol.EndFrame(dst, start)
	return dst
}

// settle puts a batch's result into the answer.
func (j *produceJob) settle(r *commitlog.Result, slot *produceSlot) {
	out := &j.resp.Topics[slot.topic].Partitions[slot.part]
	if code := resultCode(r.Err); code != protocol.CodeNone {
		j.refuse(out, code, r.Err.Error())
		return
	}
	out.BaseOffset, out.LogStartOffset, out.LogAppendTime = int64(r.Base), int64(r.LogStart), slot.appendTime
	if r.Err != nil && r.Timestamp >= 0 {
		out.LogAppendTime = r.Timestamp // a duplicate gets the time of the first one, whatever the topic stamps
	}
}

// resultCode is codeOf for the result of an append: a duplicate is success (KIP-98).
func resultCode(err error) protocol.Code {
	if err == nil || errors.Is(err, commitlog.ErrDuplicate) {
		return protocol.CodeNone
	}
	return codeOf(err)
}

// nameLeaders tells a client that came to the wrong broker which one is right (KIP-951).
func (j *produceJob) nameLeaders() {
	b := j.conn.b
	for i := range j.resp.Topics {
		for k := range j.resp.Topics[i].Partitions {
			out := &j.resp.Topics[i].Partitions[k]
			if out.Code != protocol.CodeNotLeaderOrFollower {
				continue
			}
			t, _ := j.topic(b, &j.req.Topics[i])
			if t == nil {
				continue
			}
			if node, leader, ok := b.leaderOf(t, out.Index); ok {
				out.CurrentLeader = leader
				if !slices.ContainsFunc(j.resp.Nodes, func(n protocol.NodeEndpoint) bool { return n.NodeID == node.NodeID }) {
					j.resp.Nodes = append(j.resp.Nodes, node)
				}
			}
		}
	}
}

// release gives the job, its request and its memory back.
func (j *produceJob) release() {
	j.conn.letGo(j.in)
	for i := range j.logs {
		l := &j.logs[i]
		clear(l.append.Batches)
		clear(l.slots)
		l.host = nil
	}
	j.logs = j.logs[:0]
	j.resp.Nodes = j.resp.Nodes[:0]
	j.conn, j.in = nil, inbound{}
	j.noReply, j.failed, j.code = false, false, protocol.CodeNone
	j.done.Store(false)
	produceJobs.Put(j)
}

// resize returns s with n elements, whatever they hold, and takes back old elements with what they have allocated.
func resize[T any](s []T, n int) []T {
	if n <= cap(s) {
		return s[:n]
	}
	return append(s[:cap(s)], make([]T, n-cap(s))...)
}
