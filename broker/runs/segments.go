package runs

import (
	"container/list"
	"sync"

	"github.com/skeinmq/skein/commitlog"
)

// segmentRuns bounds the runs whose segments are remembered.
const segmentRuns = 1 << 16

// segmentCache remembers the segments of sealed runs: of those that were asked for last.
type segmentCache struct {
	mu    sync.Mutex
	byRun map[runKey]*list.Element
	order list.List // of segmentEntry, the newest first
}

type segmentEntry struct {
	key  runKey
	list []commitlog.Segment
}

func (s *segmentCache) init() {
	s.byRun = make(map[runKey]*list.Element)
	s.order.Init()
}

func (s *segmentCache) get(key runKey) ([]commitlog.Segment, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byRun[key]
	if e == nil {
		return nil, false
	}
	s.order.MoveToFront(e)
	return e.Value.(segmentEntry).list, true
}

func (s *segmentCache) put(key runKey, list []commitlog.Segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byRun[key]; e != nil {
		s.order.Remove(e)
	}
	s.byRun[key] = s.order.PushFront(segmentEntry{key, list})
	if s.order.Len() > segmentRuns {
		last := s.order.Back()
		s.order.Remove(last)
		delete(s.byRun, last.Value.(segmentEntry).key)
	}
}
