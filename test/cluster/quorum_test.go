package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// byOwner counts partitions by broker.
func byOwner(leaders map[int32]int) map[int]int {
	n := make(map[int]int)
	for _, id := range leaders {
		n[id]++
	}
	return n
}

// owning waits until each of the brokers owns partitions of the ledger.
func (l *ledger) owning(ids ...int) map[int32]int {
	l.t.Helper()
	var n map[int]int
	for end := time.Now().Add(settlePatience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		leaders := l.leaders()
		n = byOwner(leaders)
		if !slices.ContainsFunc(ids, func(id int) bool { return n[id] == 0 }) {
			l.t.Logf("partitions by broker: %v", n)
			return leaders
		}
	}
	l.fatalf("brokers %v do not all get partitions: %v", ids, n)
	return nil
}

// retriable fails the test unless an error is one that clients answer by trying again.
func retriable(t *testing.T, what string, err error) {
	t.Helper()
	var code *kerr.Error
	if err == nil || errors.As(err, &code) && !code.Retriable {
		t.Errorf("%s: %v", what, err)
	}
}

// quorumTry is how long is waited for what has no answer when there is no quorum. What has one must get it meanwhile.
const quorumTry = 12 * time.Second

// TestQuorumLost loses two of three voters of five brokers. A broker whose witnesses all live goes on with what it owns; one
// that misses a witness acknowledges nothing, because nobody can record another set. One voter more, and everything goes on.
func TestQuorumLost(t *testing.T) {
	c := skein(t, 5)
	c.Voters = 3
	c.started(t, c.StartAll())
	l := newLedger(t, c)
	l.write()
	_, err := c.Stop(4)
	c.started(t, errors.Join(err, c.Start(4))) // now that the others are there, it has 5 and 1 as its witnesses
	l.owning(1, 4, 5)
	l.still()
	v := c.awaitView(t, 4, "4 is witnessed by 1 and 5", func(v view) bool { return slices.Equal(v.witnesses(4), []int{1, 5}) && v.Controller != nil })
	if err := l.commit("g", 1); err != nil {
		t.Error(err)
	}
	l.write()
	leaders := l.leaders()
	t.Logf("witnesses: 1 %v, 4 %v, 5 %v", v.witnesses(1), v.witnesses(4), v.witnesses(5))
	c.started(t, errors.Join(c.Kill(2), c.Kill(3)))
	time.Sleep(time.Second)
	// One of them died first: sets may have changed as long as there was a quorum. An owner that had no answer to such a change
	// does not go on before a write of the map settles which set it has (O8).
	before := v
	now := make(map[int][]int) // as each owner knows it: without a quorum the others need not hear of its last change any more
	for _, id := range []int{1, 4, 5} {
		now[id] = c.awaitView(t, id, "it knows its set", func(v view) bool { return len(v.witnesses(id)) > 0 }).witnesses(id)
	}

	died := func(id int) bool { return id == 2 || id == 3 }
	for range rounds(1, 3) {
		acked := l.try(quorumTry)
		for p, owner := range leaders {
			lives := !died(owner) && !slices.ContainsFunc(now[owner], died)
			doubtful := slices.ContainsFunc(before.witnesses(owner), died)
			switch {
			case lives && !doubtful && !acked[p]:
				t.Errorf("partition %d of broker %d takes no writes, though witnesses %v live", p, owner, now[owner])
			case !lives && acked[p]:
				t.Errorf("partition %d of broker %d acknowledged with witnesses %v and no quorum", p, owner, now[owner])
			}
		}
	}
	retriable(t, "commit without a quorum", l.commitWithin(quorumTry, "g", 2))
	c.awaitView(t, 4, "nobody leads", func(v view) bool {
		return v.Controller == nil && strings.Contains(v.Waiting, "waiting for brokers 2@") && strings.Contains(v.Waiting, "no group commit")
	})
	l.refused("refused")
	c.leaderless(t, 4, 2, 3)
	for _, change := range [][]string{{"replace", "2", "4"}, {"demote", "2"}} {
		if out, err := c.ops(t, 4, append([]string{"cluster", "voters"}, change...)...); err == nil || !strings.Contains(out, "waiting for brokers 2@") {
			t.Errorf("%v without a quorum: %s", change, out)
		}
	}

	begun := time.Now()
	c.started(t, c.Start(2))
	l.write()
	t.Logf("everything is writable %v after the second voter started", time.Since(begun).Round(time.Millisecond))
	l.recovers("again")
	if err := l.commit("g", 3); err != nil {
		t.Errorf("commit: %v", err)
	}
	c.started(t, c.Start(3))
	l.write()
	l.check()
}

// leaderless checks what a broker tells when a majority of the voters is dead: operators who is, a probe whom it waits for, and
// clients no dead controller.
func (c *Skein) leaderless(t *testing.T, by int, dead ...int) {
	t.Helper()
	for _, args := range []string{"cluster status", "broker list"} {
		c.awaitSaid(t, by, fmt.Sprintf("brokers %v and no others do not answer", dead), func(out string) bool {
			for line := range strings.Lines(out) {
				cells := strings.Fields(line)
				if len(cells) == 0 {
					continue
				}
				id, err := strconv.Atoi(cells[0])
				if err != nil { // what else it tells; a log's id may begin with a digit
					continue
				}
				if strings.Contains(line, "does not answer") != slices.Contains(dead, id) {
					return false // one that is slow may not answer in time
				}
			}
			return true
		}, strings.Fields(args)...)
	}
	resp, err := http.Get("http://" + c.HTTP(by) + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(text), fmt.Sprintf("waiting for brokers %d@", dead[0])) {
		t.Errorf("readyz: %s, %s, %v", resp.Status, text, err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(c.member(by).place.Kafka))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), settlePatience)
	defer cancel()
	meta, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client)
	if err != nil || meta.ControllerID != int32(by) {
		t.Errorf("metadata names controller %d, %v; want %d, which answers", meta.ControllerID, err, by)
	}
}

// TestOneSurvivor leaves one of three. It acknowledges nothing, says why, and waits when it is restarted; with a second one everything goes on.
func TestOneSurvivor(t *testing.T) {
	thorough(t)
	c := skein(t, 3)
	c.started(t, c.StartAll())
	l := newLedger(t, c)
	l.write()
	l.owning(1, 2, 3)
	l.still()
	leaders := l.leaders()
	c.started(t, errors.Join(c.Kill(2), c.Kill(3)))
	if acked := l.try(3 * time.Second); len(acked) > 0 {
		t.Errorf("one of three acknowledged %v", acked)
	}
	l.refused("refused")
	c.must(t, 1, "cluster", "status")
	c.started(t, c.Kill(1))
	c.started(t, c.spawn(c.member(1)))
	v := c.awaitView(t, 1, "it waits", func(v view) bool { return v.Waiting != "" })
	if !strings.Contains(v.Waiting, "2@") || !strings.Contains(v.Waiting, "3@") {
		t.Errorf("it waits for %q", v.Waiting)
	}
	c.started(t, c.Start(3))
	c.started(t, c.member(1).proc.Await(startPatience))
	// What 2 had acknowledged last only its disk knows now: its witnesses were restarted, too.
	for end := time.Now().Add(settlePatience); ; {
		acked := l.try(2 * time.Second)
		waits := false
		for p, owner := range leaders {
			if owner == 2 && acked[p] {
				t.Errorf("partition %d was taken over without its owner or a witness", p)
			}
			waits = waits || owner != 2 && !acked[p]
		}
		if !waits {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("partitions of 1 and 3 take no writes\n%s", c.Logs())
		}
	}
	c.started(t, c.Start(2))
	l.write()
	l.check()
}

// TestOneSurvivorWithMap: with the map in an etcd of its own the last survivor of three records that it has no witnesses, and goes on with
// what it owns; the others' partitions wait, as nobody is elected to decide. What it acknowledged alone is there when the others are back.
func TestOneSurvivorWithMap(t *testing.T) {
	thorough(t)
	c := skeinOn(t, etcdOf(t, 1))
	l := newLedger(t, c)
	l.write()
	l.owning(1, 2, 3)
	l.still()
	leaders := l.leaders()
	c.started(t, errors.Join(c.Kill(2), c.Kill(3)))
	c.awaitView(t, 1, "it has no witnesses", func(v view) bool { return len(v.witnesses(1)) == 0 })
	acked := l.try(quorumTry)
	for p, owner := range leaders {
		if owner == 1 && !acked[p] || owner != 1 && acked[p] {
			t.Errorf("partition %d of broker %d: acknowledged %v", p, owner, acked[p])
		}
	}
	retriable(t, "commit without a quorum", l.commitWithin(quorumTry, "g", 2))
	c.started(t, c.Start(2))
	l.write()
	c.started(t, c.Kill(1))
	c.started(t, c.Start(3))
	c.started(t, c.Start(1))
	l.write()
	l.check()
}

// TestAllKilled kills every broker at once, again and again, with mutual TLS between them whose certificates are replaced meanwhile, by
// ones of another CA in the end.
func TestAllKilled(t *testing.T) {
	a, err := NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := skein(t, 3, "--internal-tls-cert", a.File("broker.pem"), "--internal-tls-key", a.File("broker-key.pem"), "--internal-tls-ca", a.File("ca.pem"))
	c.started(t, a.Issue("broker", 24*time.Hour))
	c.started(t, c.StartAll())
	l := newLedger(t, c)
	l.write()
	for i := range rounds(2, 5) {
		c.started(t, a.Issue("broker", 24*time.Hour)) // read again when a connection is made
		if i == 1 {
			four, err := c.Add() // it comes with the new one
			c.started(t, err)
			c.awaitView(t, four, "it is a member", func(v view) bool { return v.broker(four).Member })
		}
		l.write()
		if err := l.commit("g", int64(i)); err != nil {
			t.Error(err)
		}
		c.started(t, forEach(c, c.Kill))
		begun := time.Now()
		c.started(t, c.StartAll())
		t.Logf("all serve %v later", time.Since(begun).Round(time.Millisecond))
		l.write()
		if got := l.committed("g"); got != int64(i) {
			t.Errorf("committed %d, want %d", got, i)
		}
	}
	stranger, err := NewAuthority(t.TempDir())
	c.started(t, err)
	c.started(t, stranger.Issue("broker", 24*time.Hour))
	args := c.Args
	c.Args = []string{"--internal-tls-cert", stranger.File("broker.pem"), "--internal-tls-key", stranger.File("broker-key.pem"), "--internal-tls-ca", a.File("ca.pem")}
	m, err := c.layOut()
	c.started(t, err)
	c.started(t, c.spawn(m))
	c.awaitView(t, m.id, "it waits", func(v view) bool { return strings.Contains(v.Waiting, "certificate") })
	t.Log(m.proc.Log())
	c.started(t, c.Kill(m.id))
	c.Args = args
	l.check()
}
