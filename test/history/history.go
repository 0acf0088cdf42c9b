// Package history records what clients of a broker were told, and finds where the broker's data contradicts it.
//
// Clients report as they run: records sent and acked, records that consumers saw, marks (high watermarks, log starts) and
// committed offsets. In the end a full read of every partition is handed in, and Check lists every contradiction. The
// package knows no network and no broker; it promises to find lost, doubled, reordered, vanished, changed and invented
// records, gaps, and marks that moved back, and its tests plant each of them.
package history

import (
	"bufio"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Partition names one partition.
type Partition struct {
	Topic string
	Index int32
}

func (p Partition) String() string { return fmt.Sprintf("%s-%d", p.Topic, p.Index) }

// Record is what a record says about itself. Seq counts a producer's records in one partition from 0; Sum is a checksum
// of all that was sent (key, value, headers).
type Record struct {
	Producer int32
	Seq      int64
	Sum      uint64
}

func (r Record) String() string {
	return fmt.Sprintf("producer %d #%d (%016x)", r.Producer, r.Seq, r.Sum)
}

// Kind is the kind of a contradiction.
type Kind string

// What Check and the recording methods find.
const (
	Lost      Kind = "lost"      // acked, but not at its offset
	Doubled   Kind = "doubled"   // there twice, though its producer is idempotent
	Reordered Kind = "reordered" // a producer's records are not in the order in which it sent them
	Vanished  Kind = "vanished"  // a consumer saw it, and it is gone
	Changed   Kind = "changed"   // an offset holds another record than before
	Invented  Kind = "invented"  // nobody sent it
	Gap       Kind = "gap"       // offsets are not contiguous
	Moved     Kind = "moved back"
	Stale     Kind = "stale" // one client was told a mark, another one that asked afterwards is told less
	Early     Kind = "early" // acked or committed, but a mark asked for afterwards is below it
	Refused   Kind = "refused"
)

// Violation is one contradiction.
type Violation struct {
	Kind      Kind
	Partition Partition
	Text      string
	Found     time.Time // while the load ran, or in the end
}

func (v Violation) String() string {
	return fmt.Sprintf("%s %s: %s: %s", v.Found.Format("15:04:05.000"), v.Kind, v.Partition, v.Text)
}

// maxViolations bounds the list: what comes after is counted only.
const maxViolations = 200

// History collects. Its methods may be called from any goroutine.
type History struct {
	clock atomic.Int64

	mu         sync.Mutex
	idempotent map[int32]bool
	parts      map[Partition]*partition
	tolerated  map[Kind]int64
	trace      *bufio.Writer
	found      []Violation
	dropped    int
}

// partition is what is known about one partition.
type partition struct {
	sent  map[int32]int64 // by producer: number of records sent
	acked []ack
	// ackedEnd is the offset behind the highest one that has been acked.
	ackedEnd int64
	high     floor  // what a later high watermark must not be below
	stable   floor  // the same for last stable offsets
	first    floor  // the same for log starts
	seen     []seen // by offset
	next     map[string]int64
	given    map[string][]bool // by group: what its members were given, by offset
	marks    map[string]int64
	final    []entry
	start    int64
	end      int64
	ended    bool
}

type ack struct {
	offset int64
	rec    Record
}

// floor is a rising list of values that clients were told, with the moments: whoever asks later must not be told less.
type floor []step

type step struct {
	at, value int64
	what      string // who was told
	kind      Kind   // what it is to be told less
}

func (f *floor) raise(s step) {
	if n := len(*f); n == 0 || s.value > (*f)[n-1].value {
		*f = append(*f, s)
	}
}

// before is the greatest value that was told before the moment.
func (f floor) before(asked int64) (step, bool) {
	for _, s := range slices.Backward(f) {
		if s.at < asked {
			return s, true
		}
	}
	return step{}, false
}

type seen struct {
	rec  Record
	some bool
}

type entry struct {
	offset int64
	rec    Record
}

// Names of the marks, before who observed them.
const (
	highMark      = "high watermark of "
	startMark     = "log start of "
	stableMark    = "last stable offset of "
	committedMark = "committed offset of "
)

// New returns an empty history.
func New() *History {
	return &History{idempotent: make(map[int32]bool), tolerated: make(map[Kind]int64), parts: make(map[Partition]*partition)}
}

// Now is a moment of the history: what is recorded later has a later one. Ask for it before sending a request for marks.
func (h *History) Now() int64 { return h.clock.Add(1) }

// Producer declares a producer. An idempotent one must find each of its records exactly once.
func (h *History) Producer(id int32, idempotent bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.idempotent[id] = idempotent
}

func (h *History) part(p Partition) *partition {
	x := h.parts[p]
	if x == nil {
		x = &partition{sent: make(map[int32]int64), next: make(map[string]int64), given: make(map[string][]bool), marks: make(map[string]int64)}
		h.parts[p] = x
	}
	return x
}

// Tolerate has the kinds counted instead of reported. A broker that was paused may, in the moment in which it wakes up and
// before it has heard that it was replaced, answer questions about marks from what it knew (Stale, Early).
func (h *History) Tolerate(kinds ...Kind) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range kinds {
		h.tolerated[k] = 0
	}
}

// report notes a violation; mu is held.
func (h *History) report(kind Kind, p Partition, format string, args ...any) {
	if n, ok := h.tolerated[kind]; ok {
		h.tolerated[kind] = n + 1
		return
	}
	if len(h.found) >= maxViolations {
		h.dropped++
		return
	}
	h.found = append(h.found, Violation{kind, p, fmt.Sprintf(format, args...), time.Now()})
}

// Fail notes a violation that the caller found: a refusal that no client can survive, damaged bytes.
func (h *History) Fail(kind Kind, p Partition, format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.report(kind, p, format, args...)
}

// Sent notes that a producer is about to send its next record and returns that record's Seq.
func (h *History) Sent(p Partition, producer int32) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.part(p)
	seq := x.sent[producer]
	x.sent[producer] = seq + 1
	return seq
}

// SentTo notes that a producer that counts by itself has sent its records below next.
func (h *History) SentTo(p Partition, producer int32, next int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.part(p)
	x.sent[producer] = max(x.sent[producer], next)
}

// Acked notes that the broker has promised rec at offset.
func (h *History) Acked(p Partition, rec Record, offset int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.part(p)
	x.acked = append(x.acked, ack{offset, rec})
	x.high.raise(step{h.clock.Add(1), offset + 1, "an ack", Early})
	x.ackedEnd = max(x.ackedEnd, offset+1)
}

// Saw notes that a consumer was given rec at offset. Consumers named ordered read each partition from some offset on
// without a jump; for others the name is empty.
func (h *History) Saw(ordered string, p Partition, rec Record, offset int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.part(p)
	if ordered != "" {
		if want, ok := x.next[ordered]; ok && offset != want {
			h.report(Gap, p, "%s was at %d and was given %d", ordered, want, offset)
		}
		x.next[ordered] = offset + 1
	}
	if offset < 0 || offset > 1<<32 {
		h.report(Invented, p, "a record at offset %d", offset)
		return
	}
	for int64(len(x.seen)) <= offset {
		x.seen = append(x.seen, seen{})
	}
	if s := x.seen[offset]; s.some && s.rec != rec {
		h.report(Changed, p, "offset %d was %v, now %v", offset, s.rec, rec)
	}
	x.seen[offset] = seen{rec, true}
	x.high.raise(step{h.clock.Add(1), offset + 1, "a consumer of the record before", Stale})
}

// Given notes that a member of a group was given the record at offset. All members together must be given everything from
// the first offset to the last that any of them was given: a group that goes on behind records that nobody got has lost them.
func (h *History) Given(group string, p Partition, offset int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.part(p)
	if offset < 0 || offset > 1<<32 {
		h.report(Invented, p, "a record at offset %d", offset)
		return
	}
	list := x.given[group]
	for int64(len(list)) <= offset {
		list = append(list, false)
	}
	list[offset] = true
	x.given[group] = list
}

// Acknowledged is the offset behind the highest one that has been acked.
func (h *History) Acknowledged(p Partition) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.part(p).ackedEnd
}

// HighWatermark notes that a request that was sent at the moment asked has been answered with this high watermark. The
// requests of one observer are answered in the order in which they are noted. A moment of 0 is not known: then the answer is
// compared with those to the same observer only.
func (h *History) HighWatermark(observer string, p Partition, asked, value int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.part(p)
	h.mark(x, p, highMark+observer, value)
	h.compare(&x.high, p, highMark+observer, asked, value)
}

// LastStable is HighWatermark for the last stable offset.
func (h *History) LastStable(observer string, p Partition, asked, value int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.part(p)
	h.mark(x, p, stableMark+observer, value)
	h.compare(&x.stable, p, stableMark+observer, asked, value)
}

// LogStart is HighWatermark for the log start.
func (h *History) LogStart(observer string, p Partition, asked, value int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.part(p)
	h.mark(x, p, startMark+observer, value)
	h.compare(&x.first, p, startMark+observer, asked, value)
}

// compare holds an answer against what others were told before the question; mu is held.
func (h *History) compare(f *floor, p Partition, what string, asked, value int64) {
	if s, ok := f.before(asked); ok && s.value > value {
		h.report(s.kind, p, "%s was told %d, then %s was %d", s.what, s.value, what, value)
	}
	f.raise(step{h.clock.Add(1), value, what, Stale})
}

// Committed notes that a group's commit of an offset was acked, or that a fetch of it was answered. The members of the
// group only ever commit what rises.
func (h *History) Committed(group string, p Partition, value int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.part(p)
	if last, ok := x.marks[committedMark+group]; !ok || value > last {
		x.marks[committedMark+group] = value
	}
}

// CommittedFloor returns the highest committed offset that was noted. Read it before asking the broker, and hand the
// answer to CommittedAfter.
func (h *History) CommittedFloor(group string, p Partition) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.part(p).marks[committedMark+group]
	if !ok {
		return -1
	}
	return v
}

// CommittedAfter notes the answer to a fetch that was sent when the floor was known: it must not be below.
func (h *History) CommittedAfter(group string, p Partition, floor, value int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if value < floor {
		h.report(Moved, p, "committed offset of %s was %d, now %d", group, floor, value)
	}
}

// mark keeps a value that must never go back; mu is held.
func (h *History) mark(x *partition, p Partition, what string, value int64) {
	if last, ok := x.marks[what]; ok && value < last {
		h.report(Moved, p, "%s was %d, now %d", what, last, value)
		return
	}
	x.marks[what] = value
}

// Read hands in the next record of the full read at the end.
func (h *History) Read(p Partition, rec Record, offset int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.part(p)
	x.final = append(x.final, entry{offset, rec})
}

// Ended hands in log start and high watermark of the full read.
func (h *History) Ended(p Partition, start, end int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.part(p)
	x.start, x.end, x.ended = start, end, true
}

// Totals are counts for a report.
type Totals struct {
	Sent, Acked, Seen, Read int64
	Tolerated               map[Kind]int64
	Doubles                 int64 // records of producers that are not idempotent that are there more than once
}
