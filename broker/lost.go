package broker

import (
	"sync"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// lostMost bounds the ranges that are remembered; what is more is counted, and not logged.
const lostMost = 1 << 12

// lostRanges remembers at which of the ranges that disks have lost a reader has come by, so that each is logged once.
type lostRanges struct {
	mu   sync.Mutex
	said map[lostRange]struct{}
}

type lostRange struct {
	partition ident.Partition
	to        ident.Offset
}

// pass counts a read that goes on behind what a run has lost at an offset (queuemapper's Readable), and logs the first one.
func (l *lostRanges) pass(b *Broker, p *partition, run queuemapper.Run, from, to ident.Offset) {
	b.metrics.lost.Inc()
	key := lostRange{p.id(), to}
	l.mu.Lock()
	_, again := l.said[key]
	if again = again || len(l.said) >= lostMost; !again {
		if l.said == nil {
			l.said = make(map[lostRange]struct{})
		}
		l.said[key] = struct{}{}
	}
	l.mu.Unlock()
	if !again {
		b.log.Warn("readers go on behind records that are lost", "topic", p.topic.name, "partition", p.index, "log", run.Log, "from", from, "to", to)
	}
}
