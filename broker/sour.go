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
	// sourFor is after how long without an error a connection is a good one again.
	sourFor = 5 * time.Second
)

// sourness is how a connection's answers have been lately. It is owned by whoever writes the connection.
type sourness struct {
	n    int // answers with nothing but errors, since the last good one
	last time.Time
}

// add counts an answer with nothing but errors and returns how long it is held.
func (s *sourness) add(now time.Time) time.Duration {
	if now.Sub(s.last) > sourFor {
		s.n = 0
	}
	s.n, s.last = s.n+1, now
	if s.n == 1 {
		return 0
	}
	return min(sourFirst<<min(s.n-2, 8), sourMost)
}

// clear counts a good answer.
func (s *sourness) clear() { s.n = 0 }

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
