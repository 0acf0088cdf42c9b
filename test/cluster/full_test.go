package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skeinmq/skein/test/faultdisk"
	"github.com/skeinmq/skein/test/load"
)

// smallDisk is more than a broker likes to have free, which is eight log files, and not much more.
const smallDisk = 8 << 30

// onSmallDisks is a cluster of three brokers that have small disks of their own.
func onSmallDisks(t *testing.T, args ...string) (*Skein, map[int]*faultdisk.Disk) {
	t.Helper()
	disks := make(map[int]*faultdisk.Disk)
	for id := 1; id <= 3; id++ {
		disks[id] = faultdisk.Temp(t, smallDisk) // they outlive the brokers
	}
	c := skein(t, 3, args...)
	for id, d := range disks {
		c.member(id).place.Data = filepath.Join(d.Dir, "data")
	}
	c.started(t, c.StartAll())
	return c, disks
}

// TestDiskFull fills the disk of one of three brokers under load. What is written leaves it by planned moves and new
// topics go elsewhere, while it goes on as a witness and serves what it has. Killed, and started with no room for a log
// file, it gets nothing; on a disk without a byte it may end, and nobody misses it; with room it gets its share again.
func TestDiskFull(t *testing.T) {
	const full = 3
	c, disks := onSmallDisks(t)
	r := begin(t, c)
	r.awaitGroups(full, func(own, all, brokers int) bool { return own*brokers*10 >= all*8 })

	at := r.note("the disk of broker %d is full but for what it holds itself", full)
	empty := r.fill(disks[full], 64<<20)
	r.awaitUnwritten(full)
	r.note("nothing is written on broker %d, %v later", full, time.Since(at).Round(time.Millisecond))
	r.settle("nearly full", at)
	r.notPlaced(full, "elsewhere")
	c.must(t, 1, "balance")
	for _, id := range []int{1, 2} {
		c.awaitView(t, id, "it goes on as a witness", func(v view) bool { return slices.Contains(v.witnesses(id), full) })
	}

	at = r.note("broker %d is killed, and has no room when it starts", full)
	r.must(c.Kill(full))
	r.settle("kill", at)
	// What is written is elsewhere already. The rest follows, a second later if the active controller died with it: a broker
	// that is back before that keeps it.
	r.awaitGroups(full, func(own, _, _ int) bool { return own == 0 })
	r.must(r.brim(disks[full], 64<<20))
	r.must(c.Start(full))
	time.Sleep(3 * time.Second) // a second is what a broker waits for that gets its share
	r.awaitGroups(full, func(own, _, _ int) bool { return own == 0 })
	r.notPlaced(full, "elsewhere too")

	r.note("not a byte is left for broker %d", full)
	r.fill(disks[full], 0)
	time.Sleep(2 * time.Second)
	r.settle("no byte", time.Now())
	at = r.note("there is room")
	r.must(empty())
	r.awaitGroups(full, func(own, all, brokers int) bool {
		r.again(c, full) // it may end now, when it gets round to what failed
		return own*brokers*10 >= all*8
	})
	r.note("broker %d has its share %v later", full, time.Since(at).Round(time.Millisecond))
	r.settle("room", time.Now())
	r.finish()
}

// TestDisksFull fills the disks of all three. As long as there is room at all everything goes on; then writes are refused
// with a code that clients retry, and reads are not. All of them killed and started on full disks refuse the same, and
// everything goes on when there is room.
func TestDisksFull(t *testing.T) {
	thorough(t)
	c, disks := onSmallDisks(t)
	r := begin(t, c)
	at := r.note("all disks are nearly full")
	for _, d := range disks {
		r.fill(d, 1280<<20) // less than four log files, and more than two
	}
	r.settle("nearly full", at)
	time.Sleep(2 * time.Second) // by now they know
	r.settle("nearly full", time.Now())
	r.notPlaced(0, "somewhere")

	r.note("all are killed and have no room when they start")
	r.must(forEach(c, c.Kill))
	for _, d := range disks {
		r.must(r.brim(d, 64<<20))
	}
	r.must(c.StartAll())
	r.awaitRefusal()
	r.note("there is room on one")
	var empty []func() error
	for _, d := range disks {
		e, err := faultdisk.Fill(d.Dir, 64<<20)
		r.must(err)
		empty = append(empty, e)
	}
	at = time.Now()
	r.must(empty[0]())
	r.settle("room on one", at)
	r.must(errors.Join(empty[1](), empty[2]()))
	at = r.note("there is room")
	r.settle("room", at)
	r.finish()
}

func (r *run) fill(d *faultdisk.Disk, left int64) (empty func() error) {
	r.t.Helper()
	begun := time.Now()
	empty, err := faultdisk.Fill(d.Dir, left)
	r.must(err)
	r.note("filled in %v", time.Since(begun).Round(time.Millisecond))
	return empty
}

// brim takes the files away that a broker, which does not run, had ready for its log, and fills the disk again.
func (r *run) brim(d *faultdisk.Disk, left int64) error {
	ready, err := filepath.Glob(filepath.Join(d.Dir, "data", "log", "pool-*"))
	for _, name := range ready {
		err = errors.Join(err, os.Remove(name))
	}
	r.fill(d, left)
	return err
}

// again starts a broker that has ended meanwhile.
func (r *run) again(c *Skein, id int) {
	r.t.Helper()
	m := c.member(id)
	if c.Running(id) {
		return
	}
	r.note("broker %d ended by itself: %v", id, m.proc.Err())
	m.over()
	r.must(c.Start(id))
}

// ask is a client for what is asked once.
func (r *run) ask(opts ...kgo.Opt) *kgo.Client {
	r.t.Helper()
	cl, err := r.load.Client(opts...)
	r.must(err)
	return cl
}

// leads lists the partitions of a topic, or of the load, that a broker leads.
func (r *run) leads(id int, topics ...string) (out []string) {
	r.t.Helper()
	cl := r.ask()
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), settlePatience)
	defer cancel()
	if len(topics) == 0 {
		for _, t := range r.load.Topics {
			topics = append(topics, t.Name)
		}
	}
	md, err := kadm.NewClient(cl).Metadata(ctx, topics...)
	for err == nil && md.Topics.Error() != nil { // whoever is asked does not know them as yet
		pauseFor(ctx, 20*time.Millisecond)
		md, err = kadm.NewClient(cl).Metadata(ctx, topics...)
	}
	r.must(err)
	md.Topics.EachPartition(func(p kadm.PartitionDetail) {
		if p.Leader == int32(id) {
			out = append(out, fmt.Sprintf("%s:%d", p.Topic, p.Partition))
		}
	})
	return out
}

// awaitUnwritten waits until a broker leads nothing of the load, as all of them know.
func (r *run) awaitUnwritten(id int) {
	r.t.Helper()
	var left []string
	for end := time.Now().Add(settlePatience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if left = r.leads(id); len(left) == 0 {
			return
		}
	}
	r.t.Fatalf("broker %d still leads %s\n%s", id, strings.Join(left, ", "), r.c.Logs())
}

// notPlaced makes a topic of which a broker must get no partition.
func (r *run) notPlaced(id int, name string) {
	r.t.Helper()
	cl := r.ask()
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), settlePatience)
	defer cancel()
	topic := strings.ReplaceAll(name, " ", "-")
	r.must(createTopic(ctx, cl, 6, -1, topic))
	if got := r.leads(id, topic); len(got) > 0 {
		r.t.Errorf("broker %d, whose disk is full, got %s", id, strings.Join(got, ", "))
	}
}

// awaitRefusal waits until a produce is refused for want of room.
func (r *run) awaitRefusal() {
	r.t.Helper()
	cl := r.ask(kgo.RecordRetries(0), kgo.DisableIdempotentWrite(), kgo.AllowAutoTopicCreation())
	defer cl.Close()
	if err := load.AwaitRefusal(cl, settlePatience); err != nil {
		r.t.Fatalf("%v\n%s", err, r.c.Logs())
	}
}
