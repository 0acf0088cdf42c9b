package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skeinmq/skein/test/faultdisk"
	"github.com/skeinmq/skein/test/history"
	"github.com/skeinmq/skein/test/load"
	"github.com/skeinmq/skein/test/process"
)

// smallDisk is room for the log file in use, two that are ready, and a quarter of what the broker likes to have free.
const smallDisk = 2600 << 20

// smallFS mounts a small file system of its own, or skips the test and says why.
func smallFS(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small tmpfs takes root")
	}
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("skein-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", smallDisk)); err != nil {
		t.Skipf("mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill takes the room of a file system but for what is to be left, and returns what gives it back.
func fill(t *testing.T, dir string, left int64) (empty func()) {
	t.Helper()
	remove, err := faultdisk.Fill(dir, left)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	}
}

// TestDiskFull fills the disk below a broker under load: writes are refused with a retriable code and nothing else suffers;
// a kill and a start on the full disk work; when there is room again everything goes on, and nothing was lost.
func TestDiskFull(t *testing.T) {
	disk := smallFS(t)
	ports, err := process.Ports(2)
	if err != nil {
		t.Fatal(err)
	}
	seed := number(t, envSeed, rand.Uint64()%1e9)
	t.Logf("replay with %s=%d", envSeed, seed)
	r := &run{t: t, rng: rand.New(rand.NewPCG(seed, 0)), logs: make(map[string]int)}
	r.broker = process.Broker{Bin: skein(t), Data: []string{filepath.Join(disk, "a")}, Listen: ports[0], HTTP: ports[1],
		Args: []string{"--set", "group.initial.rebalance.delay.ms=0"}}
	r.load = &load.Load{Seeds: []string{ports[0]}, Seed: seed, H: history.New(), Patience: patience}
	p := r.start()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := errors.Join(r.load.Create(ctx), r.load.Begin()); err != nil {
		p.Kill()
		t.Fatal(err)
	}
	r.await(p, "acked", r.load.Acked, 500)

	empty := fill(t, disk, 64<<20)
	r.awaitRefusal()
	r.kill(p)
	p = r.start()
	r.awaitRefusal()
	empty()
	r.await(p, "acked", r.load.Acked, r.load.Acked()+500)

	empty = fill(t, disk, 0) // not a byte for anybody, the map and the coordinators included
	r.awaitRefusal()
	r.pause(2000)
	empty()
	late := time.After(patience)
	for want := r.load.Acked() + 500; r.load.Acked() < want; time.Sleep(time.Millisecond) {
		select {
		case <-p.Done(): // at once, or when it gets round to what failed
			t.Logf("the broker gave up on a disk without a byte: %v\n%s", p.Err(), p.Log())
			p = r.start()
		case <-late:
			t.Fatalf("nothing is acked on a disk with room\n%s", p.Log())
		default:
		}
	}
	r.finish(p)
}

// awaitRefusal waits until a produce is refused for want of room.
func (r *run) awaitRefusal() {
	r.t.Helper()
	cl, err := r.load.Client(kgo.RecordRetries(0), kgo.DisableIdempotentWrite(), kgo.AllowAutoTopicCreation())
	if err != nil {
		r.t.Fatal(err)
	}
	defer cl.Close()
	if err := load.AwaitRefusal(cl, patience); err != nil {
		r.t.Error(err)
	}
}
