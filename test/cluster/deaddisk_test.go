package cluster

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/skeinmq/skein/test/faultdisk"
	"github.com/skeinmq/skein/test/history"
)

// TestDeadDisk breaks the disk of one of three brokers under load: first every call ends with EIO, then every write waits for
// 10 s. The broker gives its groups up and ends, the others take them over, and it comes back on its healed disk.
func TestDeadDisk(t *testing.T) {
	disk := faultdisk.Temp(t, 8<<30)
	c := skein(t, 3)
	const broken = 1
	c.member(broken).place.Data = filepath.Join(disk.Dir, "data")
	if err := c.StartAll(); err != nil {
		t.Fatal(err)
	}
	r := begin(t, c)

	at := r.note("the disk of broker %d dies", broken)
	r.must(disk.Fail())
	r.settle("EIO", at)
	r.gone(c, broken, at)
	r.must(disk.Heal())
	r.must(c.Start(broken))
	r.awaitGroups(broken, func(own, all, brokers int) bool { return own*brokers*2 >= all })

	r.load.H.Tolerate(history.Stale, history.Early) // it answers on while it waits for its disk
	at = r.note("the disk of broker %d hangs", broken)
	r.must(disk.Hang())
	long := time.After(10 * time.Second)
	r.settle("hang", at)
	<-long
	r.note("the disk of broker %d goes on", broken)
	r.must(disk.Resume())
	r.gone(c, broken, at)
	r.must(c.Start(broken))
	r.settle("healed", time.Now())
	r.finish()
}

// gone waits until a broker has ended by itself.
func (r *run) gone(c *Skein, id int, since time.Time) {
	r.t.Helper()
	m := c.member(id)
	select {
	case <-m.proc.Done():
		r.note("broker %d ended by itself, %v later at most: %v", id, time.Since(since).Round(time.Millisecond), m.proc.Err())
		m.over()
	case <-time.After(stopPatience):
		r.t.Fatalf("broker %d still runs on a disk that is dead\n%s", id, r.c.Logs())
	}
}
