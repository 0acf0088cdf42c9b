package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skeinmq/skein/test/process"
)

// refused starts a broker that must end with exit code 2, say why, and write nothing into its directory but its lock.
func (c *Skein) refused(t *testing.T, what, data, want string, args ...string) {
	t.Helper()
	addrs, err := process.Ports(2 + 3*len(c.members))
	if err != nil {
		t.Fatal(err)
	}
	before := contents(t, data)
	served := false
	for _, m := range c.members {
		served = served || m.proc != nil && m.place.Data == data
	}
	b := process.Broker{Bin: c.Bin, Data: []string{data}, Listen: addrs[len(addrs)-1], HTTP: addrs[len(addrs)-2], Args: args}
	p, err := b.Spawn()
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
	case <-time.After(settlePatience):
		_ = p.Kill()
		t.Errorf("%s: it was not refused\n%s", what, p.Log())
		return
	}
	t.Logf("%s: %v\n%s", what, p.Err(), p.Log())
	if p.Err() == nil || p.Err().Error() != "exit status 2" || !strings.Contains(p.Log(), want) {
		t.Errorf("%s: it ended with %v and did not say %q", what, p.Err(), want)
	}
	said := make(map[string]bool)
	for line := range strings.Lines(p.Log()) {
		if line = strings.TrimPrefix(line, "skein: "); said[line] {
			t.Errorf("%s: it says twice: %s", what, line)
		}
		said[line] = true
	}
	if served { // and written to by another one
		return
	}
	after := contents(t, data)
	for name, text := range after {
		if before[name] != text {
			t.Errorf("%s: %s was written", what, name)
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			t.Errorf("%s: %s is gone", what, name)
		}
	}
}

// contents are the files of a directory, without the lock: of the large ones, which are logs, the times and sizes.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() || info.Name() == "pid" {
			return nil
		}
		out[path] = fmt.Sprintf("%v %d", info.ModTime(), info.Size())
		if info.Size() < 1<<20 {
			text, err := os.ReadFile(path)
			out[path] += string(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRefusals: who may not be in the cluster is told why, before anything is written.
func TestRefusals(t *testing.T) {
	c := skein(t, 3)
	c.started(t, c.StartAll())
	four, err := c.Add()
	c.started(t, err)
	in := func(id int) string { return c.member(id).place.Internal }
	free := func() string {
		addrs, err := process.Ports(40)
		if err != nil {
			t.Fatal(err)
		}
		return addrs[39]
	}
	dir := func() string { return filepath.Join(t.TempDir(), "data") }

	at := free()
	for says, stop := range map[string]bool{"another process is broker 2": false, "cluster voters replace 2": true} {
		if stop {
			_, err := c.Stop(2)
			c.started(t, err)
			c.awaitRegistered(t, 2, false, 1, 3)
		}
		c.refused(t, "a voter's id, with a fresh directory", dir(), says, "--node-id", "2", "--internal", free(), "--join", in(1))
		c.refused(t, "a founder's id, with a fresh directory", dir(), says, "--node-id", "2", "--peers", fmt.Sprintf("1@%s,2@%s,3@%s", in(1), at, in(3)))
		if stop {
			c.started(t, c.Start(2))
			c.awaitRegistered(t, 2, true, 1, 3)
		}
	}
	c.awaitRegistered(t, four, true, 1)
	c.refused(t, "a broker's id that runs", dir(), "another process is broker 4", "--node-id", fmt.Sprint(four), "--internal", free(), "--join", in(1))
	c.refused(t, "a list that has another broker there", dir(), "is broker 3, not 2", "--node-id", "9", "--peers", fmt.Sprintf("9@%s,2@%s", free(), in(3)))
	c.refused(t, "a founder that the cluster does not have", dir(), "has no voter 9", "--node-id", "9", "--peers", fmt.Sprintf("9@%s,1@%s,2@%s", free(), in(1), in(2)))
	c.refused(t, "an internal port that another broker has", dir(), "address already in use", "--node-id", "9", "--internal", in(3), "--join", in(1))
	c.refused(t, "a directory that another process serves", c.member(3).place.Data, "serves it", "--node-id", "3", "--internal", free(), "--join", in(1))

	other := skein(t, 1)
	other.started(t, other.StartAll())
	_, err = c.Stop(four)
	c.started(t, err)
	c.refused(t, "another broker's directory", c.member(four).place.Data, "it is broker 4's", "--node-id", "9", "--internal", free(), "--join", in(1))

	_, err = other.Stop(1)
	other.started(t, err)
	c.refused(t, "another cluster's directory", other.member(1).place.Data, "cluster", "--node-id", "1", "--internal", free(), "--join", in(1))
	other.started(t, other.StartAll())
	c.refused(t, "two clusters to join", dir(), "different clusters", "--node-id", "9", "--internal", free(), "--join", in(1)+","+other.member(1).place.Internal)
	c.refused(t, "another cluster's directory, in a list", c.member(four).place.Data, "is of cluster", "--node-id", fmt.Sprint(four),
		"--peers", fmt.Sprintf("%d@%s,1@%s", four, in(four), other.member(1).place.Internal))
	c.started(t, c.Start(four))
	newLedger(t, c).write()
}

// nextBuild builds skein as a later version of it might be: it knows one feature level more, and uses it (queuemapper/next_on.go).
func nextBuild(t *testing.T, name, flags string) string {
	t.Helper()
	binary(t) // whose directory is cleared away in the end
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(built.dir, name)
	if built.dir == "" {
		bin = filepath.Join(t.TempDir(), name)
	}
	cmd := exec.Command("go", "build", "-tags", "skeinnext", "-ldflags", "-X main.version=next "+flags, "-o", bin, "./cmd/skein")
	cmd.Dir, cmd.Env = filepath.Dir(strings.TrimSpace(string(out))), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// upgraded starts a broker that does not run as another build, and waits until all have seen it: an error if one ends over that.
func (c *Skein) upgraded(t *testing.T, id int, bin string) error {
	t.Helper()
	was := c.Bin
	c.Bin = bin
	err := c.spawn(c.member(id))
	c.Bin = was
	c.started(t, err)
	for end := time.Now().Add(settlePatience); ; time.Sleep(20 * time.Millisecond) {
		all := true
		for _, m := range c.members {
			if !c.Running(m.id) {
				return fmt.Errorf("broker %d ended: %w\n%s", m.id, m.proc.Err(), m.proc.Log())
			}
			v, err := c.view(m.id)
			all = all && err == nil && v.broker(id).Registered
		}
		if all {
			return c.member(id).proc.Await(startPatience)
		}
		if time.Now().After(end) {
			return fmt.Errorf("broker %d is not seen by all", id)
		}
	}
}

// nextForms are the keys of the map whose values have the form that the next build's level brings.
func (c *Skein) nextForms(t *testing.T, by int) (keys []string) {
	t.Helper()
	out, err := c.quietly(by, "meta", "dump")
	c.started(t, err)
	for line := range strings.Lines(out) {
		var kv struct {
			Key   string
			Value struct{ NextField int }
		}
		if err := json.Unmarshal([]byte(line), &kv); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if kv.Value.NextField != 0 {
			keys = append(keys, kv.Key)
		}
	}
	t.Logf("%d values have the next form", len(keys))
	return keys
}

// TestRollingUpgrade replaces the binary of one broker after the other, under writes; both builds work together. The level is
// raised when all are there. From then on the newer build writes what the older one cannot read, which is refused before it
// writes anything.
func TestRollingUpgrade(t *testing.T) {
	fresh := nextBuild(t, "skein-next", "")
	c := skein(t, 3)
	c.started(t, c.StartAll())
	l := newLedger(t, c)
	l.write()
	if out, err := c.ops(t, 1, "cluster", "level", "raise", "2"); err == nil {
		t.Errorf("raised: %s", out)
	}
	for id := 1; id <= 3; id++ {
		if out, err := c.ops(t, id, "cluster", "level", "raise", "2"); err == nil {
			t.Errorf("raised with %d brokers upgraded: %s", id-1, out)
		}
		_, err := c.Stop(id)
		c.started(t, err)
		l.write()
		c.started(t, c.upgraded(t, id, fresh))
		l.write()
		if keys := c.nextForms(t, id); len(keys) > 0 {
			t.Errorf("written unasked: %v", keys)
		}
	}
	c.started(t, c.Kill(3))
	if out, err := c.ops(t, 1, "cluster", "level", "raise"); err == nil || !strings.Contains(out, "broker 3 does not answer") {
		t.Errorf("raised without broker 3: %s", out)
	}
	c.started(t, c.upgraded(t, 3, fresh))
	if out := c.must(t, 1, "cluster", "level", "raise"); !strings.Contains(out, "feature level 2") {
		t.Error("not raised")
	}
	l.write()
	c.must(t, 2, "cluster", "level")
	for _, m := range c.members {
		for end := time.Now().Add(settlePatience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) { // until each has noted it
			if text, _ := os.ReadFile(filepath.Join(m.place.Data, "meta", "node.json")); strings.Contains(string(text), `"level": 2`) {
				break
			}
		}
	}
	_, err := l.create("upgraded", settlePatience)
	c.started(t, err)

	in := c.member(1).place.Internal
	free, err := process.Ports(30)
	c.started(t, err)
	c.refused(t, "an older build that joins", filepath.Join(t.TempDir(), "data"), "knows feature levels up to 1", "--node-id", "9", "--internal", free[29], "--join", in)
	_, err = c.Stop(3)
	c.started(t, err)
	m := c.member(3)
	c.refused(t, "an older build that comes back", m.place.Data, "feature level is 2, this build knows levels 1 to 1", "--node-id", "3", "--internal", m.place.Internal)
	c.started(t, c.upgraded(t, 3, fresh))
	l.write()
	l.check()
	keys := c.nextForms(t, 1)
	for _, want := range []string{"/skein/brokers/3", "/skein/topics/upgraded", "/skein/pg/"} {
		if !slices.ContainsFunc(keys, func(key string) bool { return strings.HasPrefix(key, want) }) {
			t.Errorf("%s is not written in the next form: %v", want, keys)
		}
	}
}

// TestRollingUpgradePlanted proves that the test can fail: a build that does not ask for the level ends the older ones.
func TestRollingUpgradePlanted(t *testing.T) {
	planted := nextBuild(t, "skein-unasked", "-X github.com/skeinmq/skein/queuemapper.unasked=yes")
	c := skein(t, 3)
	c.started(t, c.StartAll())
	_, err := c.Stop(1)
	c.started(t, err)
	for _, id := range []int{2, 3} {
		c.awaitView(t, id, "broker 1 is away", func(v view) bool { return !v.broker(1).Registered })
	}
	if err := c.upgraded(t, 1, planted); err == nil || !strings.Contains(err.Error(), "newer map format") {
		t.Errorf("not caught: %v", err)
	}
}
