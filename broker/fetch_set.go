package broker

import (
	"sync"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
)

// fetchSet is the partitions that a client reads: those of one request, or of a session. Only parts in its ready list
// are looked at when a request comes; a part leaves the list when there is nothing to tell about it and its queue is
// watched, and the watch puts it back. So a fetch costs what changed, not what is subscribed.
//
// One fetch at a time owns a set; only dirty and wake are shared with the logs' completing goroutines.
type fetchSet struct {
	byKey map[partKey]*fetchPart
	order []*fetchPart // of a full request: the order of the answer
	first *fetchPart   // the ready list
	last  *fetchPart

	mu    sync.Mutex
	dirty []*fetchPart
	wake  chan struct{} // holds one token: something is dirty
}

// partKey names a partition as the request does: by name or by id.
type partKey struct {
	name  string
	id    protocol.UUID
	index int32
}

// fetchPart is one partition of a set. It is the Watcher of the queue that it waits for.
type fetchPart struct {
	partKey
	set *fetchSet
	p   *partition // nil while the partition is not known

	offset      int64
	maxBytes    int32
	leaderEpoch int32
	lastEpoch   int32

	// told is what the client knows of the partition's marks, -1 at first and after an error.
	toldHigh, toldStart int64

	// hosted is since when the client reads here what another broker owns, in hostedEpoch of the partition; zero: it does not.
	hosted      time.Time
	hostedEpoch ident.Epoch

	watched    *commitlog.Queue
	ready      bool
	prev, next *fetchPart

	dirty bool // owned by set.mu
}

func newFetchSet(n int) *fetchSet {
	return &fetchSet{byKey: make(map[partKey]*fetchPart, n), wake: make(chan struct{}, 1)}
}

// put adds a partition or takes over the client's new values; either way it is looked at next.
func (s *fetchSet) put(key partKey, from *protocol.FetchPartition) *fetchPart {
	f := s.byKey[key]
	if f == nil {
		f = &fetchPart{partKey: key, set: s, toldHigh: -1, toldStart: -1}
		s.byKey[key] = f
	}
	f.offset, f.maxBytes = from.FetchOffset, from.MaxBytes
	f.leaderEpoch, f.lastEpoch = from.CurrentLeaderEpoch, from.LastFetchedEpoch
	s.push(f)
	return f
}

// drop removes a partition.
func (s *fetchSet) drop(key partKey) {
	f := s.byKey[key]
	if f == nil {
		return
	}
	delete(s.byKey, key)
	s.pull(f)
	f.unwatch()
}

// close ends all watches.
func (s *fetchSet) close() {
	for _, f := range s.byKey {
		f.unwatch()
	}
}

// push puts a part at the end of the ready list, if it is not in it.
func (s *fetchSet) push(f *fetchPart) {
	if f.ready {
		return
	}
	f.ready, f.prev, f.next = true, s.last, nil
	if s.last == nil {
		s.first = f
	} else {
		s.last.next = f
	}
	s.last = f
}

// pull takes a part out of the ready list.
func (s *fetchSet) pull(f *fetchPart) {
	if !f.ready {
		return
	}
	if f.prev == nil {
		s.first = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next == nil {
		s.last = f.prev
	} else {
		f.next.prev = f.prev
	}
	f.ready, f.prev, f.next = false, nil, nil
}

// rotate moves a part that got data to the end, so that it does not starve the others.
func (s *fetchSet) rotate(f *fetchPart) {
	if f.ready && s.last != f {
		s.pull(f)
		s.push(f)
	}
}

// collect moves the parts whose queues changed to the ready list.
func (s *fetchSet) collect() {
	select {
	case <-s.wake:
	default:
	}
	s.mu.Lock()
	for i, f := range s.dirty {
		f.dirty = false
		if s.byKey[f.partKey] == f {
			s.push(f)
		}
		s.dirty[i] = nil
	}
	s.dirty = s.dirty[:0]
	s.mu.Unlock()
}

// Notify is told by the log that the queue changed.
func (f *fetchPart) Notify(*commitlog.Queue) {
	s := f.set
	s.mu.Lock()
	if !f.dirty {
		f.dirty = true
		s.dirty = append(s.dirty, f)
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// watch makes the part wait for changes of q. It reports whether it did so only now: then the caller looks once more,
// as q may have changed before.
func (f *fetchPart) watch(q *commitlog.Queue) bool {
	if f.watched == q {
		return false
	}
	f.unwatch()
	f.watched = q
	q.Watch(f)
	return true
}

func (f *fetchPart) unwatch() {
	if f.watched != nil {
		f.watched.Unwatch(f)
		f.watched = nil
	}
}
