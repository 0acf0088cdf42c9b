package broker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
)

// TestLoads: rates are per second since the last sample, of groups that did something.
func TestLoads(t *testing.T) {
	var l loads
	t0 := time.Unix(1000, 0)
	l.init(4, t0)
	l.appended(1, ident.Partition{}, 3000)
	l.appended(1, ident.Partition{}, 1000)
	l.read(3, 500)
	l.read(2, 0)
	l.appended(9, ident.Partition{}, 1) // not a group
	got := l.sample(t0.Add(2 * time.Second))
	if len(got) != 2 || got[0].Group != 1 || got[0].BytesIn != 2000 || got[0].BatchesIn != 1 || got[1].Group != 3 || got[1].ColdBytesOut != 250 {
		t.Errorf("first sample: %v", got)
	}
	if again := l.sample(t0.Add(2100 * time.Millisecond)); len(again) != 2 {
		t.Errorf("asked again soon: %v", again)
	}
	if later := l.sample(t0.Add(4 * time.Second)); len(later) != 0 {
		t.Errorf("at rest: %v", later)
	}
}

// sampledLong makes the last sample of the loads a second old.
func (b *Broker) sampledLong() {
	b.loads.mu.Lock()
	defer b.loads.mu.Unlock()
	b.loads.taken = time.Now().Add(-time.Second)
}

// TestLoadsOfABroker: what is produced and read is counted at its group.
func TestLoadsOfABroker(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{Static: map[string]string{"num.partitions": "1"}})
	h := newHistory("t", 1)
	h.produce(t, cs[0], 20)
	stays := cs[0].b.store.Map().Topic("t").Partitions[0]
	group := stays[len(stays)-1].Group
	cs[0].b.sampledLong()
	got := cs[0].b.Loads()
	if len(got) != 1 || got[0].Group != int32(group) || got[0].BatchesIn == 0 || got[0].BytesIn == 0 || got[0].ColdBytesOut != 0 {
		t.Errorf("after producing to group %d: %v", group, got)
	}
	moveTopic(t, cs[0], cs[1], "t")
	h.check(t, cs[1], func(int) int { return 0 })
	cs[1].b.sampledLong()
	if got := cs[1].b.Loads(); len(got) != 1 || got[0].ColdBytesOut == 0 {
		t.Errorf("after a read from another broker: %v", got)
	}
}

// TestLook: the partitions of one group are counted while somebody looks, and only then.
func TestLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l loads
		l.init(4, time.Now())
		l.appended(1, ident.Partition{Index: 9}, 1000)
		go func() {
			for range 5 {
				time.Sleep(100 * time.Millisecond)
				l.appended(1, ident.Partition{Index: 2}, 600)
				l.appended(1, ident.Partition{Index: 3}, 300)
				l.appended(2, ident.Partition{Index: 4}, 900)
			}
			for i := range int32(20) {
				l.appended(1, ident.Partition{Index: 100 + i}, 25)
			}
		}()
		k, err := l.lookAt(t.Context(), 1, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		parts, bytes, all := k.hottest()
		if len(parts) != hottestMost || parts[0].Index != 2 || bytes[0] != 3000 || parts[1].Index != 3 || bytes[1] != 1500 || all != 5000 {
			t.Errorf("hottest: %v %v of %d", parts, bytes, all)
		}
		l.appended(1, ident.Partition{Index: 2}, 600)
		if _, _, all := k.hottest(); all != 5000 || l.look.Load() != nil {
			t.Error("it counts although nobody looks")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.lookAt(ctx, 1, time.Second); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that has gone: %v", err)
		}
	})
}

func TestDiskUsed(t *testing.T) {
	for _, tt := range []struct {
		disk, free int64
		level      commitlog.Level
		want       float64
	}{
		{0, 0, commitlog.LevelOK, 0},
		{30, 70, commitlog.LevelOK, 0.3},
		{30, 70, commitlog.LevelAvoid, 0.9},
		{97, 3, commitlog.LevelAvoid, 0.97},
		{30, 70, commitlog.LevelThrottle, 0.95},
		{30, 70, commitlog.LevelRefuse, 1},
	} {
		if got := diskUsed(&commitlog.Stats{DiskBytes: tt.disk, FreeBytes: tt.free, Level: tt.level}); got != tt.want {
			t.Errorf("%d of %d at level %d: %v, want %v", tt.disk, tt.disk+tt.free, tt.level, got, tt.want)
		}
	}
}
