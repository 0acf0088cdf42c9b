package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReplaceVoter loses a voter for good and replaces it, by a broker that joined through one that does not vote itself;
// after that another voter may die. The lost one comes back all the same, and is a plain broker.
func TestReplaceVoter(t *testing.T) {
	c := skein(t, 3)
	c.started(t, c.StartAll())
	l := newLedger(t, c)
	four, err := c.Add()
	c.started(t, err)
	c.Join = func(int) []int { return []int{four} }
	five, err := c.Add()
	c.started(t, err)
	l.write()

	if out, err := c.ops(t, 1, "cluster", "voters", "remove", "3"); err == nil || !strings.Contains(out, "its process runs") {
		t.Errorf("a voter that runs was removed: %s", out)
	}
	c.started(t, c.Kill(3))
	l.write()
	if out, err := c.ops(t, 1, "cluster", "voters", "replace", "3", "9"); err == nil || !strings.Contains(out, "broker 9 is no member") {
		t.Errorf("replaced by a stranger: %s", out)
	}
	if out, err := c.ops(t, 1, "cluster", "voters", "replace", "3", "2"); err == nil || !strings.Contains(out, "broker 2 votes already") {
		t.Errorf("replaced by a voter: %s", out)
	}
	if out, err := c.ops(t, 1, "cluster", "voters", "add", "5"); err == nil || !strings.Contains(out, "voters [3] do not answer") {
		t.Errorf("added while a voter is away: %s", out)
	}
	c.must(t, five, "cluster", "voters", "replace", "3", fmt.Sprint(four))
	c.must(t, five, "cluster", "voters", "replace", "3", fmt.Sprint(four)) // asked again: no harm
	v := c.awaitView(t, 1, "4 votes instead of 3", func(v view) bool { return v.votes() == "1 2 4" && v.members() == "broker-1 broker-2 broker-4" })
	t.Logf("%+v", v.Etcd)
	l.write()

	c.started(t, c.Kill(2))
	l.write()
	t.Log("3 comes back, which had not noted its cluster's members when it was killed")
	c.started(t, forgetMembers(c.member(3).place.Data))
	c.started(t, c.Start(3))
	c.awaitView(t, 3, "it does not vote", func(v view) bool { return v.votes() == "1 2 4" && v.Controller != nil })
	c.awaitView(t, 1, "3 is there", func(v view) bool { b := v.broker(3); return b.Registered && b.Member && !b.Voter })
	c.started(t, c.Start(2))
	l.write()
	l.check()
}

// forgetMembers makes a broker's node file what it is in the first moments of a cluster.
func forgetMembers(data string) error {
	name := filepath.Join(data, "meta", "node.json")
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var file map[string]any
	if err := json.Unmarshal(text, &file); err != nil {
		return err
	}
	delete(file, "members")
	if text, err = json.Marshal(file); err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o644)
}

// TestChangeVoters: one broker becomes three that vote, then five, whose founder is demoted and, another time, replaced while
// it is the active controller.
func TestChangeVoters(t *testing.T) {
	thorough(t)
	c := skein(t, 1)
	c.started(t, c.StartAll())
	l := newLedger(t, c)
	for range 4 {
		_, err := c.Add()
		c.started(t, err)
	}
	for _, id := range []string{"2", "3"} {
		c.must(t, 1, "cluster", "voters", "add", id)
	}
	l.write()
	c.awaitView(t, 5, "three vote", func(v view) bool { return v.votes() == "1 2 3" })
	was := c.awaitView(t, 1, "somebody leads", func(v view) bool { return v.Controller != nil })
	leads := *was.Controller
	c.must(t, 5, "cluster", "voters", "replace", fmt.Sprint(leads), "4")
	v := c.awaitView(t, 5, "4 votes instead", func(v view) bool { return len(v.votes()) == 5 && strings.Contains(v.votes(), "4") })
	if strings.Contains(v.votes(), fmt.Sprint(leads)) {
		t.Errorf("%d votes still: %s", leads, v.votes())
	}
	c.awaitView(t, leads, "it is there", func(v view) bool { return v.broker(leads).Registered })
	l.write()
	c.must(t, 5, "cluster", "voters", "add", fmt.Sprint(leads))
	c.must(t, 5, "cluster", "voters", "add", "5")
	c.awaitView(t, 5, "five vote", func(v view) bool { return v.votes() == "1 2 3 4 5" && len(v.Etcd) == 5 })
	l.write()
	c.started(t, errors.Join(c.Kill(1), c.Kill(2)))
	l.write()
	c.started(t, c.StartAll())
	l.write()
	l.check()
}

// TestLastVoter: the vote of one that is alone cannot be taken.
func TestLastVoter(t *testing.T) {
	c := skein(t, 1)
	c.started(t, c.StartAll())
	_, err := c.Add()
	c.started(t, err)
	if out, err := c.ops(t, 1, "cluster", "voters", "demote", "1"); err == nil || !strings.Contains(out, "the last voter") {
		t.Errorf("demoted: %s", out)
	}
	v := c.awaitView(t, 1, "its etcd has one member", func(v view) bool { return len(v.Etcd) == 1 })
	if v.votes() != "1" {
		t.Errorf("votes %s", v.votes())
	}
}

// TestWaits: a broker that cannot reach the others says whom it waits for, in its log and to operators, and stops when it is told to.
func TestWaits(t *testing.T) {
	c := skein(t, 3)
	c.started(t, c.spawn(c.member(2)))
	v := c.awaitView(t, 2, "it waits", func(v view) bool { return v.Waiting != "" })
	for _, other := range []int{1, 3} {
		if want := fmt.Sprintf("%d@%s", other, c.member(other).place.Internal); !strings.Contains(v.Waiting, want) {
			t.Errorf("%q does not name %s", v.Waiting, want)
		}
	}
	c.awaitView(t, 2, "it waits for what its log says", func(v view) bool {
		return v.Waiting != "" && strings.Contains(c.member(2).proc.Log(), v.Waiting)
	})
	if took, err := c.Stop(2); err != nil || took > stopPatience/2 {
		t.Errorf("stopped after %v: %v", took, err)
	}
	c.started(t, c.StartAll())
	m, err := c.layOut()
	c.started(t, err)
	c.Join = func(int) []int { return []int{3} }
	c.started(t, c.Kill(3))
	c.started(t, c.spawn(m))
	c.awaitView(t, m.id, "it waits", func(v view) bool {
		return strings.Contains(v.Waiting, "waiting to join at "+c.member(3).place.Internal)
	})
	c.started(t, c.Start(3))
	c.started(t, m.proc.Await(startPatience))
}
