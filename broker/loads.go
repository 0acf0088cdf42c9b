package broker

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

// loads counts what this broker does for each group, for the balancer.
type loads struct {
	groups []groupCount // by group
	look   atomic.Pointer[look]
	looks  sync.Mutex // held while somebody looks at partitions

	mu    sync.Mutex
	taken time.Time // of was
	was   []groupSample
	rates []*peerpb.GroupLoad
}

// groupCount is of one group. Every produced batch touches one, so each has a cache line of its own.
type groupCount struct {
	bytes, batches, cold atomic.Int64
	_                    [40]byte
}

type groupSample struct{ bytes, batches, cold int64 }

// loadsEach is the shortest time over which rates are told: below it they are noise.
const loadsEach = 500 * time.Millisecond

func (l *loads) init(groups int, now time.Time) {
	l.groups = make([]groupCount, groups)
	l.was = make([]groupSample, groups)
	l.taken = now
}

// appended counts a batch.
func (l *loads) appended(g ident.Group, p ident.Partition, bytes int) {
	if int(g) < len(l.groups) {
		l.groups[g].bytes.Add(int64(bytes))
		l.groups[g].batches.Add(1)
	}
	if k := l.look.Load(); k != nil && k.group == g {
		k.appended(p, bytes)
	}
}

// read counts bytes that came from a disk.
func (l *loads) read(g ident.Group, cold int) {
	if cold > 0 && int(g) < len(l.groups) {
		l.groups[g].cold.Add(int64(cold))
	}
}

// sample is the rates per second since the sample before; groups at rest are left out.
func (l *loads) sample(now time.Time) []*peerpb.GroupLoad {
	l.mu.Lock()
	defer l.mu.Unlock()
	past := now.Sub(l.taken)
	if past < loadsEach {
		return l.rates
	}
	var out []*peerpb.GroupLoad
	rate := func(n int64) float64 { return math.Round(float64(n) / past.Seconds()) }
	for i := range l.groups {
		c := &l.groups[i]
		is, was := groupSample{c.bytes.Load(), c.batches.Load(), c.cold.Load()}, l.was[i]
		l.was[i] = is
		if is != was {
			out = append(out, &peerpb.GroupLoad{
				Group: int32(i), BytesIn: rate(is.bytes - was.bytes), BatchesIn: rate(is.batches - was.batches), ColdBytesOut: rate(is.cold - was.cold),
			})
		}
	}
	l.taken, l.rates = now, out
	return out
}

// Loads tells the controller what this broker does for each of its groups, per second, since it was asked before: bytes
// and batches that were produced, and bytes that were read from disks, here or at other brokers.
func (b *Broker) Loads() []*peerpb.GroupLoad { return b.loads.sample(time.Now()) }

// What a log says of its room, as a share of a disk in use: small disks are full before their last percent is, as files are made whole.
var levelUsed = map[commitlog.Level]float64{commitlog.LevelAvoid: 0.90, commitlog.LevelThrottle: 0.95, commitlog.LevelRefuse: 1}

// DiskUsed is how full the fullest disk is, 0 to 1, of what this broker's log takes and could take; 1: the log takes no more.
func (b *Broker) DiskUsed() float64 {
	used := 0.0
	for _, l := range b.cfg.Logs {
		s := l.Stats()
		used = max(used, diskUsed(&s))
	}
	return used
}

func diskUsed(s *commitlog.Stats) float64 {
	used := levelUsed[s.Level]
	if s.DiskBytes+s.FreeBytes > 0 {
		used = max(used, float64(s.DiskBytes)/float64(s.DiskBytes+s.FreeBytes))
	}
	return used
}
