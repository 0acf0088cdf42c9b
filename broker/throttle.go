package broker

import (
	"context"
	"time"
)

// A disk that runs full slows its producers down before it refuses them: each connection is told to wait (KIP-219), and is
// not read for that long, so that clients that do not know of waiting do as well. Nothing is held meanwhile but the
// connection: its request is in the log and answered as ever.

// throttleMost is the longest wait by default, just before the disk refuses everything.
const throttleMost = time.Second

// throttleFor turns a log's pressure into a wait. What will be refused is not made to wait: the partition may have an
// owner with room a moment later, and nothing must keep the client from finding it.
func throttleFor(pressure float64, most time.Duration) time.Duration {
	if pressure <= 0 || pressure >= 1 {
		return 0
	}
	// A client that is told of no whole millisecond would not wait at all.
	return max(time.Duration(pressure*float64(most)).Truncate(time.Millisecond), time.Millisecond)
}

// pressure is that of the log with the least room.
func (b *Broker) pressure() (most float64) {
	for _, l := range b.cfg.Logs {
		most = max(most, l.Pressure())
	}
	return most
}

// throttle is how long the connection of a request is not read, for the log of the request that has least room.
func (j *produceJob) throttle() (wait time.Duration) {
	for i := range j.logs {
		wait = max(wait, throttleFor(j.logs[i].host.log.Pressure(), j.conn.b.cfg.ThrottleMost))
	}
	return wait
}

// rest keeps the connection from being read for as long as its last request says.
func (c *conn) rest(ctx context.Context) {
	if c.mute == 0 {
		return
	}
	c.b.muted.Add(1)
	defer c.b.muted.Add(-1)
	c.b.metrics.throttled.Add(c.mute.Seconds())
	timer := time.NewTimer(c.mute)
	defer timer.Stop()
	c.mute = 0
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
