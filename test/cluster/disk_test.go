package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDiskMoves: the disk of a machine that died is attached to another one. The broker is the same, at other addresses; all that was on
// the disk can be read again.
func TestDiskMoves(t *testing.T) {
	c := skein(t, 3)
	c.started(t, c.StartAll())
	l := newLedger(t, c)
	four, err := c.Add()
	c.started(t, err)
	l.owning(four)
	l.write()
	for _, id := range []int{four, 1} { // a plain broker, and a voter
		c.started(t, c.Kill(id))
		l.write()
		m := c.member(id)
		elsewhere := filepath.Join(t.TempDir(), "disk")
		c.started(t, os.Rename(m.place.Data, elsewhere))
		fresh, err := c.layOut()
		c.started(t, err)
		c.members = c.members[:len(c.members)-1]
		m.place = Place{Kafka: fresh.place.Kafka, Internal: fresh.place.Internal, HTTP: fresh.place.HTTP, Data: elsewhere}
		m.moved = true // neither --peers nor --join: it knows the cluster
		c.started(t, c.Start(id))
		c.awaitView(t, 2, "it is there", func(v view) bool { return v.broker(id).Registered })
		c.awaitView(t, id, "somebody leads", func(v view) bool { return v.Controller != nil })
		l.write()
	}
	c.must(t, 2, "cluster", "status")
	c.started(t, c.Kill(2)) // the voter at its new address counts
	l.write()
	c.started(t, c.Start(2))
	l.check()
}

// TestOldCopy: a broker comes back with a copy of its directory from before its last start. What it lacks was acknowledged: it is refused.
// With the directory itself it comes back.
func TestOldCopy(t *testing.T) {
	thorough(t) // it copies a gigabyte
	c := skein(t, 3)
	c.started(t, c.StartAll())
	l := newLedger(t, c)
	four, err := c.Add()
	c.started(t, err)
	l.owning(four)
	l.write()
	data := c.member(four).place.Data
	c.started(t, c.Kill(four))
	c.started(t, os.CopyFS(data+".copy", os.DirFS(data)))
	c.started(t, c.Start(four))
	l.owning(four)
	l.write()
	c.started(t, c.Kill(four))
	l.write()
	c.started(t, os.Rename(data, data+".true"))
	c.started(t, os.Rename(data+".copy", data))
	if err := c.Start(four); err == nil || !strings.Contains(err.Error(), "it is an old copy of the disk") {
		t.Errorf("an old copy was not refused: %v", err)
	}
	c.member(four).over()
	l.write()
	c.started(t, os.RemoveAll(data))
	c.started(t, os.Rename(data+".true", data))
	c.started(t, c.Start(four))
	l.owning(four)
	l.write()
	l.check()
}

// TestFreshDisk: the disk of a plain broker is gone for good. It comes back with a fresh directory, and a new log; writes never
// waited; what lay on the old disk and nowhere else is shown as away.
func TestFreshDisk(t *testing.T) {
	thorough(t)
	c := skein(t, 3)
	c.started(t, c.StartAll())
	l := newLedger(t, c)
	four, err := c.Add()
	c.started(t, err)
	l.owning(four)
	l.write()
	c.started(t, c.Kill(four))
	c.started(t, os.RemoveAll(c.member(four).place.Data))
	l.write()
	begun := time.Now()
	c.started(t, c.Start(four))
	l.owning(four)
	t.Logf("it owns partitions again after %v", time.Since(begun).Round(time.Millisecond))
	l.write()
	c.awaitSaid(t, 1, "the old log is absent", has("1 of 2 logs absent", true), "broker", "list")
	c.awaitSaid(t, 1, "what lay there is away", has("unavailable", true), "map", "show", ledgerTopic)
}
