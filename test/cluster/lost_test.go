package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestOldLog: a broker comes back with a copy of its log that lacks what was acknowledged since it was made. That is marked as lost,
// its offsets stay, and a reader from the beginning gets what is before and what is behind it, in order; also when the
// broker with the old copy owns the partitions again.
func TestOldLog(t *testing.T) {
	c := skein(t, 3)
	c.started(t, c.StartAll())
	l := newLedger(t, c)
	l.owning(1, 2, 3)
	l.still()
	const three = 3
	l.write()
	log := filepath.Join(c.member(three).place.Data, "log")
	c.started(t, copyWritten(log+".copy", log))
	led := l.leaders()
	for range 3 {
		l.write()
	}
	c.started(t, c.Kill(three))
	l.write()
	c.started(t, os.RemoveAll(log))
	c.started(t, os.Rename(log+".copy", log))
	c.started(t, c.Start(three))
	kept := func(p int32, offset int64) bool { return led[p] != three || offset < 1 || offset > 3 }
	l.readKept(true, kept)
	c.awaitSaid(t, 1, "something is lost", has("LOST 1..4", true), "map", "show", ledgerTopic)
	c.must(t, 1, "balance", "on")
	l.owning(1, 2, 3)
	l.write()
	l.readKept(true, kept)
}

// TestLostDisk: the disk of a broker is gone for good. Until an operator says so, what lay there is shown as away; then readers go on
// behind it. First the broker comes back with a fresh disk, then it does not come back.
func TestLostDisk(t *testing.T) {
	l, four := newLosing(t)
	c := l.c
	l.write()
	l.write()
	old := c.logOf(t, four)
	if out, err := c.ops(t, 1, "map", "lost", old, "--yes"); err == nil || !strings.Contains(out, "is live and has it") {
		t.Errorf("a log that is served was given up: %v", err)
	}
	c.started(t, c.Kill(four))
	l.ledger.write()
	c.started(t, os.RemoveAll(c.member(four).place.Data))
	c.started(t, c.Start(four))
	c.awaitView(t, 1, "broker 4 is back", func(v view) bool { return v.broker(four).Registered })
	c.awaitSaid(t, 1, "what lay on the old disk is away", has("unavailable", true), "map", "show", ledgerTopic)
	c.awaitSaid(t, 1, "the old log is absent", has("1 of 2 logs absent", true), "broker", "list")
	c.awaitAwayRuns(t, len(l.lost))
	c.must(t, 1, "map", "lost", old)
	if again, err := c.quietly(1, "map", "show", ledgerTopic); err != nil || strings.Contains(again, "LOST") {
		t.Errorf("without --yes, something was given up: %v\n%s", err, again)
	}
	c.must(t, 1, "map", "lost", old, "--yes")
	l.readKept(true, l.kept)
	c.awaitAwayRuns(t, 0)

	l.again(four)
	c.started(t, c.Kill(four))
	c.started(t, os.RemoveAll(c.member(four).place.Data))
	c.awaitView(t, 1, "broker 4 is given up", func(v view) bool { return !v.broker(four).Registered })
	c.must(t, 1, "broker", "remove", "4", "--lost", "--yes")
	c.awaitSaid(t, 1, "broker 4 was removed", has("away", false), "broker", "list")
	l.ledger.write()
	l.readKept(true, l.kept)
}

// TestLostUnwitnessed: the disk of a broker and both witnesses of its log are gone. Nobody can tell where its partitions end: when an
// operator says that the disk will not come back, they go on at their ceilings.
func TestLostUnwitnessed(t *testing.T) {
	thorough(t) // it loses the quorum on its way
	l, four := newLosing(t)
	c := l.c
	l.write()
	witnesses := c.awaitView(t, 1, "broker 4's log has witnesses", func(v view) bool { return len(v.witnesses(four)) == 2 }).witnesses(four)
	for _, id := range append(witnesses, four) {
		c.started(t, c.Kill(id))
	}
	c.started(t, os.RemoveAll(c.member(four).place.Data))
	for _, id := range witnesses {
		c.started(t, c.Start(id))
	}
	c.awaitView(t, 1, "broker 4 is given up", func(v view) bool { return v.Controller != nil && !v.broker(four).Registered })
	c.must(t, 1, "broker", "remove", "4", "--lost", "--yes")
	l.ledger.write()
	l.readKept(false, l.kept)
}

// losing is a ledger whose partitions lie on four brokers, one of which loses its disks.
type losing struct {
	*ledger
	four int
	lost map[int32]map[int]bool // what was written to that broker, by its place in acked
}

func newLosing(t *testing.T) (l *losing, four int) {
	t.Helper()
	c := skein(t, 3)
	c.started(t, c.StartAll())
	l = &losing{ledger: newLedger(t, c), lost: make(map[int32]map[int]bool)}
	four, err := c.Add()
	c.started(t, err)
	l.four = four
	l.owning(1, 2, 3, four)
	l.still()
	return l, four
}

// write is ledger's, and remembers what will be lost.
func (l *losing) write() {
	l.t.Helper()
	led := l.leaders()
	l.ledger.write()
	for p, id := range led {
		if id != l.four {
			continue
		}
		if l.lost[p] == nil {
			l.lost[p] = make(map[int]bool)
		}
		l.lost[p][len(l.acked[p])-1] = true
	}
}

func (l *losing) kept(p int32, place int64) bool { return !l.lost[p][int(place)] }

// again has the broker own partitions once more, and writes to it.
func (l *losing) again(four int) {
	l.t.Helper()
	l.c.must(l.t, 1, "balance", "on")
	l.owning(1, 2, 3, four)
	l.still()
	l.write()
}

// awayRuns is what the first three brokers count together.
func (c *Skein) awayRuns(t *testing.T) (sum int) {
	t.Helper()
	for id := 1; id <= 3; id++ {
		n, err := metrics(c.HTTP(id), fmt.Sprintf("skein_broker_away_runs{node=%q}", strconv.Itoa(id)))
		if err != nil {
			t.Fatal(err)
		}
		sum += int(n[0])
	}
	return sum
}

// awaitAwayRuns waits until they count so many.
func (c *Skein) awaitAwayRuns(t *testing.T, want int) {
	t.Helper()
	n := c.awayRuns(t)
	for end := time.Now().Add(settlePatience); n != want; n = c.awayRuns(t) {
		if time.Now().After(end) {
			t.Fatalf("%d runs are counted as away, want %d\n%s", n, want, c.Logs())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// logOf is the log of a broker.
func (c *Skein) logOf(t *testing.T, id int) string {
	t.Helper()
	v, err := readMap(t.Context(), c.HTTP(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range v.Logs {
		if l.Broker == id {
			return l.ID
		}
	}
	t.Fatalf("broker %d has no log", id)
	return ""
}

// readKept reads everything from the beginning: exactly the acknowledged records that are kept, in order; and each at the offset
// that is its place in what was acknowledged, unless offsets have jumped.
func (l *ledger) readKept(exact bool, kept func(p int32, place int64) bool) {
	l.t.Helper()
	say := func(offset int64, value string) string {
		if !exact {
			return value
		}
		return fmt.Sprintf("%d: %s", offset, value)
	}
	begun := time.Now()
	read, unread := l.readAll()
	l.t.Logf("read in %v", time.Since(begun).Round(time.Millisecond))
	for p := range l.partitions {
		var want, got []string
		for o, v := range l.acked[p] {
			if kept(p, int64(o)) {
				want = append(want, say(int64(o), v))
			}
		}
		for _, r := range read[p] {
			got = append(got, say(r.offset, r.value))
		}
		if !slices.Equal(got, want) {
			l.t.Errorf("partition %d: want %v, got %v", p, want, got)
		}
	}
	if len(unread) > 0 {
		l.fatalf("partitions %v were not read to their ends", unread)
	}
}

// writtenMost is how much of each file of a log is looked at: these tests write little, and a file begins with what is written.
const writtenMost = 4 << 20

// copyWritten copies a log's directory. The files get their sizes; beyond writtenMost there are zeroes, as in the log.
func copyWritten(to, from string) error {
	files, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		if err := copyHead(filepath.Join(to, f.Name()), filepath.Join(from, f.Name())); err != nil {
			return err
		}
	}
	return nil
}

func copyHead(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, writtenMost))
	return errors.Join(err, out.Truncate(info.Size()), out.Close())
}
