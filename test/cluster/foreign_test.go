package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skeinmq/skein/test/history"
	"github.com/skeinmq/skein/test/load"
)

// envForeign names a file with the commands of clients that are not franz-go, which `bin/conformance --workers FILE` writes.
const envForeign = "SKEIN_CLUSTER_CLIENTS"

// foreignClients are the clients that are installed.
func foreignClients(t *testing.T) []load.Foreign {
	t.Helper()
	file := os.Getenv(envForeign)
	if file == "" {
		t.Skipf("no foreign clients: `bin/conformance --workers FILE` installs them (as `make conformance` does), %s=FILE names them", envForeign)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var commands map[string][]string
	if err := json.Unmarshal(data, &commands); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	var out []load.Foreign
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		out = append(out, load.Foreign{Name: name, Argv: commands[name]})
	}
	return out
}

// withForeign lets foreign clients do a good part of the work.
func withForeign(list []load.Foreign) func(*load.Load) {
	return func(l *load.Load) { l.Foreign, l.Slower = list, 45 }
}

// settleForeign waits until each foreign client has written, read and committed everywhere since the moment.
func (r *run) settleForeign(fault string, since time.Time) {
	r.t.Helper()
	for end := time.Now().Add(settlePatience); ; time.Sleep(5 * time.Millisecond) {
		behind := r.load.Behind(since)
		if len(behind) == 0 {
			r.writable[fault] = append(r.writable[fault], time.Since(since))
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s: %d things that foreign clients have not done %v later, %s among them\n%s\n%s",
				fault, len(behind), settlePatience, behind[0], r.load.ForeignLogs(), r.c.Logs())
		}
	}
}

// TestForeignClients breaks three brokers under the Java client and librdkafka, as they come: an idempotent producer, a
// consumer of everything, and a member of one group of each.
func TestForeignClients(t *testing.T) {
	list := foreignClients(t)
	r := begin(t, clusterOf(t, 3), withForeign(list))
	r.settleForeign("foreign: start", time.Now())
	left := time.Now()
	if long() {
		left = left.Add(longTime)
	}
	for first := true; first || time.Now().Before(left); first = false {
		todo := named("kill", "stop", "pause", "roll")
		if long() {
			todo = faults
		}
		for _, i := range r.rng.Perm(len(todo)) {
			todo[i].do(r)
			at := r.note("all is up after %s", todo[i].name)
			r.settle("after "+todo[i].name, at)
			r.settleForeign("foreign: after "+todo[i].name, at)
			r.pause(400)
		}
	}
	r.finish()
}

// followPatience is far below what the clients of TestForeignFollow wait after an error that does not name the new leader.
const followPatience = 30 * time.Second

// TestForeignFollow drains a broker under a Java producer and a Java consumer that wait a minute before they try again
// or ask for metadata: they must go on by the leaders that the answers name (KIP-951).
func TestForeignFollow(t *testing.T) {
	list := foreignClients(t)
	c, ok := clusterOf(t, 3).(*Skein)
	if !ok {
		t.Skip("Skein only")
	}
	list = slices.DeleteFunc(list, func(f load.Foreign) bool { return !strings.HasPrefix(f.Name, "java") })
	for i := range list {
		list[i].Roles = []string{load.RoleProduce, load.RoleReader}
		// With several requests in flight one can reach the new leader before the one ahead of it is back from the old one: out of
		// sequence, and tried again a minute later.
		list[i].Settings = map[string]string{"retry.backoff.ms": "60000", "retry.backoff.max.ms": "60000", "max.in.flight.requests.per.connection": "1"}
	}
	r := begin(t, c, withForeign(list))
	r.settleForeign("foreign: start", time.Now())
	at := r.note("drain broker 1")
	ctx, cancel := context.WithTimeout(t.Context(), settlePatience)
	defer cancel()
	r.must(c.Drain(ctx, 1, 2))
	r.awaitGroups(1, func(own, _, _ int) bool { return own == 0 })
	drained := time.Now()
	r.note("broker 1 is empty %v later", drained.Sub(at).Round(time.Millisecond))
	r.settleForeign("foreign: drain", drained)
	if took := time.Since(drained); took > followPatience {
		t.Errorf("the clients went on after %v: not by what the answers say", took)
	}
	r.finish()
}

// TestForeignLies has each client report what is not so, of real records: the judge must see it.
func TestForeignLies(t *testing.T) {
	list := foreignClients(t)
	c := clusterOf(t, 1)
	type lie struct {
		kind history.Kind
		of   string
	}
	data := []lie{{history.Gap, load.ForeignGroup}}
	for i, f := range list {
		data = append(data, lie{history.Lost, fmt.Sprintf("producer %d ", load.FirstForeign+i)}, lie{history.Gap, f.Name + " tail"})
	}
	for plant, want := range map[string][]lie{"data": data, "commit": {{history.Moved, load.ForeignGroup}}} {
		t.Run(plant, func(t *testing.T) {
			liars := slices.Clone(list)
			for i := range liars {
				liars[i].Plant = plant
			}
			r := begin(t, c, withForeign(liars), func(l *load.Load) { l.Topics = []load.Topic{{Name: "lies-" + plant, Partitions: 2}} })
			r.settleForeign("start", time.Now())
			for range 10 { // rounds of writes, reads and commits of everybody: enough to have lied
				r.settleForeign("more", time.Now())
			}
			r.must(r.load.Finish())
			r.must(r.load.ReadAll(t.Context()))
			found, _ := r.load.H.Check()
			for _, w := range want {
				if !slices.ContainsFunc(found, func(v history.Violation) bool { return v.Kind == w.kind && strings.Contains(v.Text, w.of) }) {
					t.Errorf("no %q of %s was found among %d: %v", w.kind, w.of, len(found), found[:min(len(found), 10)])
				}
			}
		})
	}
}
