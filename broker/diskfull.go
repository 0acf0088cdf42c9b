package broker

import (
	"context"
	"time"

	"github.com/skeinmq/skein/queuemapper"
)

// fullEach is how often this broker looks whether its disk is nearly full.
const fullEach = time.Second

// fullNow says whether a disk that was full, or not, is so when it is used to that share.
func fullNow(was bool, used float64) bool {
	return used >= queuemapper.DiskFull || was && used >= queuemapper.DiskFull-queuemapper.DiskBack
}

// keepFull says in this broker's registration whether its disk is nearly full, until ctx ends: whoever makes topics or opens
// groups, at whatever broker, then chooses others. The balancer looks at the heartbeats, which say more.
func (b *Broker) keepFull(ctx context.Context) error {
	tick := time.NewTicker(fullEach)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		used := b.DiskUsed()
		if was := b.full.Load(); fullNow(was, used) != was {
			b.signFull(ctx, !was, used)
		}
	}
}

func (b *Broker) sayFull(used float64) {
	b.log.Warn("the disk is nearly full: new partitions go to brokers that have room", "used", used)
}

// signFull registers this broker anew. What fails is tried again at the next look.
func (b *Broker) signFull(ctx context.Context, full bool, used float64) {
	b.signing.Lock()
	defer b.signing.Unlock()
	if b.leaving.Load() {
		return
	}
	sign, cancel := context.WithTimeout(ctx, signTime)
	defer cancel()
	b.full.Store(full)
	if err := b.register(sign); err != nil {
		b.full.Store(!full)
		return
	}
	if full {
		b.sayFull(used)
	} else {
		b.log.Info("the disk has room again", "used", used)
	}
}
