package broker

import (
	"time"

	"github.com/skeinmq/skein/protocol"
)

// Clients that get nothing but errors try again at once, all of them, at the worst of times. So Produce and Fetch answers in
// which everything failed are held a little: not the first one of a connection, which tells a client where its partition
// went and must be fast, then longer with each.
const (
	sourFirst = 10 * time.Millisecond
	sourMost  = 50 * time.Millisecond
	// sourTold is how many answers are not held that tell where all of the partitions went (KIP-951): the client goes there, and
	// what it has in flight here must be back soon. One that stays all the same is held like others.
	sourTold = 64
	// sourFor is after how long without an error a connection is a good one again.
	sourFor = 5 * time.Second
)

// sourness is how a connection's answers have been lately. It is owned by whoever writes the connection.
type sourness struct {
	n    int // answers with nothing but errors, since the last good one
	told int // of those, that were not held as they name leaders
	last time.Time
}

// add counts an answer with nothing but errors and returns how long it is held; told: it names the new leaders.
func (s *sourness) add(now time.Time, told bool) time.Duration {
	if now.Sub(s.last) > sourFor {
		s.n, s.told = 0, 0
	}
	s.last = now
	if told && s.told < sourTold {
		s.told++
		return 0
	}
	s.n++
	if s.n == 1 {
		return 0
	}
	return min(sourFirst<<min(s.n-2, 8), sourMost)
}

// clear counts a good answer.
func (s *sourness) clear() { s.n, s.told = 0, 0 }

// allFailed reports whether a Produce request has got nothing but errors.
func (j *produceJob) allFailed() bool {
	if !j.failed {
		return false
	}
	for i := range j.resp.Topics {
		for k := range j.resp.Topics[i].Partitions {
			if j.resp.Topics[i].Partitions[k].Code == protocol.CodeNone {
				return false
			}
		}
	}
	return true
}

// told reports whether a Produce answer names another broker for everything that failed.
func (j *produceJob) told() bool {
	for i := range j.resp.Topics {
		for k := range j.resp.Topics[i].Partitions {
			out := &j.resp.Topics[i].Partitions[k]
			if out.Code != protocol.CodeNone && (!out.CurrentLeader.Known || out.CurrentLeader.NodeID == int32(j.conn.b.cfg.ID)) {
				return false
			}
		}
	}
	return true
}

// allFailed reports whether a pass has found nothing but errors.
func (j *fetchJob) allFailed() bool {
	if j.bytes > 0 || len(j.results) == 0 {
		return false
	}
	for i := range j.results {
		if j.results[i].out.Code == protocol.CodeNone {
			return false
		}
	}
	return true
}
