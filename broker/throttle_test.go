package broker

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
)

func TestThrottleFor(t *testing.T) {
	for _, tt := range []struct {
		pressure float64
		want     time.Duration
	}{{0, 0}, {1e-9, time.Millisecond}, {0.25, 250 * time.Millisecond}, {0.5, 500 * time.Millisecond}, {0.9999, 999 * time.Millisecond}, {1, 0}} {
		if got := throttleFor(tt.pressure, time.Second); got != tt.want {
			t.Errorf("pressure %g: %v, want %v", tt.pressure, got, tt.want)
		}
	}
}

// TestThrottled: a disk that runs full tells producers to wait, and does not read their connections, whatever they want
// next; others are served. What waits holds no memory and ends with the broker.
func TestThrottled(t *testing.T) {
	const most = time.Hour // so that nothing ends by itself
	disk := withRoom(900 << 30)
	c := startBrokersOn(t, 1, 1, Config{ThrottleMost: most}, nil, func(c *cluster) { c.fs = disk })[0]
	topic := c.topic("t", 1, nil)
	w, other := c.dial(), c.dial()
	for range 2 {
		if resp := w.ask(produceRequest(9, topic, 0, batch(1, time.Now()))).(*kmsg.ProduceResponse); resp.ThrottleMillis != 0 {
			t.Fatalf("told to wait %d ms with room", resp.ThrottleMillis)
		}
	}
	disk.free.Store(6 << 30) // of the 4 to 8 GiB in which a disk of this size throttles
	log := c.b.cfg.Logs[0]
	until(t, "the disk runs full", func() bool { return log.Pressure() > 0 })
	pressure := log.Pressure()
	resp := w.ask(produceRequest(9, topic, 0, batch(1, time.Now()))).(*kmsg.ProduceResponse)
	if want := int32(pressure * float64(most.Milliseconds())); pressure < 0.4 || pressure > 0.5 || resp.ThrottleMillis != want {
		t.Errorf("pressure %g: told to wait %d ms, want %d", pressure, resp.ThrottleMillis, want)
	}
	if got := resp.Topics[0].Partitions[0]; got.ErrorCode != 0 || got.BaseOffset != 2 {
		t.Errorf("code %d offset %d: what is throttled is taken all the same", got.ErrorCode, got.BaseOffset)
	}
	until(t, "the connection is not read", func() bool { return c.b.muted.Load() == 1 })
	w.send(kmsg.NewPtrMetadataRequest())
	if got := other.ask(kmsg.NewPtrMetadataRequest()).(*kmsg.MetadataResponse); len(got.Brokers) != 1 {
		t.Error("another connection is not served")
	}
	w.nc.SetReadDeadline(time.Now())
	if _, err := w.nc.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is read all the same: %v", err)
	}
	until(t, "nothing is held", func() bool { return c.b.memory.used.Load() == 0 })

	// With room again, and beyond the level at which everything is refused, nobody waits.
	disk.free.Store(900 << 30)
	until(t, "there is room", func() bool { return log.Pressure() == 0 })
	if resp := other.ask(produceRequest(9, topic, 0, batch(1, time.Now()))).(*kmsg.ProduceResponse); resp.ThrottleMillis != 0 {
		t.Errorf("told to wait %d ms with room again", resp.ThrottleMillis)
	}
	disk.free.Store(0)
	until(t, "the disk is full", func() bool { return log.Pressure() == 1 })
	resp = other.ask(produceRequest(9, topic, 0, batch(1, time.Now()))).(*kmsg.ProduceResponse)
	if code := resp.Topics[0].Partitions[0].ErrorCode; resp.ThrottleMillis != 0 || code != int16(protocol.CodeKafkaStorageError) {
		t.Errorf("full: told to wait %d ms, code %d", resp.ThrottleMillis, code)
	}
}
