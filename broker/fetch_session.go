package broker

import (
	"container/list"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/skeinmq/skein/protocol"
)

// Bounds of the fetch sessions of a broker. A client that gets no session sends its whole list each time, which is
// slower and works just as well.
const (
	sessionPartitions = 500_000
	// sessionKeep is how long a session is safe from being ended in favour of a newer one.
	sessionKeep = 2 * time.Minute
)

// Epochs of a fetch session (KIP-227).
const (
	sessionEpochFull  = 0
	sessionEpochFinal = -1
)

// sessions are the fetch sessions of a broker: ids are random, the one that was unused longest goes first.
type sessions struct {
	slots int // sessions at most

	mu    sync.Mutex
	byID  map[int32]*session
	used  list.List // of *session, oldest use first
	parts int
}

// session is an incremental fetch session (KIP-227).
type session struct {
	id    int32
	byIDs bool // partitions are named by topic id

	// turn holds a token; whoever has it owns set and epoch. A client that reconnects may wait for its own old request.
	turn  chan struct{}
	set   *fetchSet
	epoch int32 // of the next request
	ended bool

	// Owned by sessions.mu.
	element  *list.Element
	lastUsed time.Time
	size     int
}

func newSessions(slots int) *sessions {
	return &sessions{slots: slots, byID: make(map[int32]*session)}
}

func (s *sessions) size() (n, partitions int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byID), s.parts
}

// create makes a session of a set, whose turn the caller has, or nil if there is no room.
func (s *sessions) create(set *fetchSet, byIDs bool, evicted func()) *session {
	now := time.Now()
	n := len(set.byKey)
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.byID) >= s.slots || s.parts+n > sessionPartitions {
		oldest := s.used.Front()
		if oldest == nil || now.Sub(oldest.Value.(*session).lastUsed) < sessionKeep {
			return nil
		}
		s.remove(oldest.Value.(*session))
		evicted()
	}
	x := &session{set: set, byIDs: byIDs, turn: make(chan struct{}, 1), epoch: 1, lastUsed: now, size: n}
	for x.id == 0 || s.byID[x.id] != nil {
		x.id = rand.Int32()
	}
	x.element = s.used.PushBack(x)
	s.byID[x.id] = x
	s.parts += n
	return x
}

// remove takes a session out of the books; mu is held. Its watches end when its turn is free.
func (s *sessions) remove(x *session) {
	delete(s.byID, x.id)
	s.used.Remove(x.element)
	s.parts -= x.size
	select {
	case <-x.turn:
		x.end()
	default: // its owner sees, when it is done, that the session is gone
	}
}

// end ends the watches of a session that is out of the books; the caller has its turn.
func (x *session) end() {
	x.ended = true
	x.set.close()
}

// acquire finds a session and waits for its turn.
func (s *sessions) acquire(ctx context.Context, id int32) (*session, error) {
	s.mu.Lock()
	x := s.byID[id]
	s.mu.Unlock()
	if x == nil {
		return nil, refuseCode(protocol.CodeFetchSessionIDNotFound)
	}
	select {
	case <-x.turn:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if x.ended {
		x.turn <- struct{}{}
		return nil, refuseCode(protocol.CodeFetchSessionIDNotFound)
	}
	return x, nil
}

// giveBack ends a turn.
func (s *sessions) giveBack(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[x.id] != x {
		if !x.ended {
			x.end()
		}
	} else {
		s.parts += len(x.set.byKey) - x.size
		x.size = len(x.set.byKey)
		x.lastUsed = time.Now()
		s.used.MoveToBack(x.element)
	}
	x.turn <- struct{}{}
}

// close ends a session at its client's wish.
func (s *sessions) close(id int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.byID[id]; x != nil {
		s.remove(x)
	}
}

// begin works out what a request reads: the set, and the session if it is of one. fullAnswer says that the answer must
// name every partition. The caller ends it with finish.
func (j *fetchJob) begin(ctx context.Context) error {
	q, s := &j.req, j.b.sessions
	j.byIDs = j.version >= 13
	if q.SessionEpoch == sessionEpochFinal || q.SessionEpoch == sessionEpochFull {
		if q.SessionID != 0 {
			s.close(q.SessionID)
		}
		j.full = true
		j.set = newFetchSet(len(q.Topics))
		j.put()
		if q.SessionEpoch == sessionEpochFull {
			j.session = s.create(j.set, j.byIDs, j.b.metrics.sessionsEvicted.Inc)
		}
		return nil
	}
	x, err := s.acquire(ctx, q.SessionID)
	if err != nil {
		return err
	}
	if x.byIDs != j.byIDs || x.epoch != q.SessionEpoch {
		s.giveBack(x)
		if x.byIDs != j.byIDs {
			return refuseCode(protocol.CodeFetchSessionTopicIDError)
		}
		return refuseCode(protocol.CodeInvalidFetchSessionEpoch)
	}
	x.epoch = max(x.epoch+1, 1) // wraps to 1
	j.session, j.set = x, x.set
	for i := range q.Forgotten {
		t := &q.Forgotten[i]
		for _, index := range t.Partitions {
			j.set.drop(partKey{name: t.Name, id: t.ID, index: index})
		}
	}
	j.put()
	if len(j.set.byKey) == 0 { // nothing is left: Kafka ends the session and answers without one
		s.close(x.id)
		j.full = true
	}
	return nil
}

// put takes the request's partitions into the set.
func (j *fetchJob) put() {
	for i := range j.req.Topics {
		t := &j.req.Topics[i]
		for k := range t.Partitions {
			p := &t.Partitions[k]
			f := j.set.put(partKey{name: t.Name, id: t.ID, index: p.Index}, p)
			if j.full {
				j.set.order = append(j.set.order, f)
			}
		}
	}
}

// finish gives the set back: to its session, or away.
func (j *fetchJob) finish() {
	switch {
	case j.set == nil:
	case j.session != nil:
		j.set.order = nil
		j.b.sessions.giveBack(j.session)
	default:
		j.set.close()
	}
	j.set, j.session = nil, nil
}
