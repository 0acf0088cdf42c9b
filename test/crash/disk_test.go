package crash

import (
	"context"
	"errors"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skeinmq/skein/test/faultdisk"
	"github.com/skeinmq/skein/test/history"
	"github.com/skeinmq/skein/test/load"
	"github.com/skeinmq/skein/test/process"
)

// diskBytes is room for a broker's log with files prepared ahead; the image is sparse.
const diskBytes = 8 << 30

// stuckWrite is the age of a write at which a broker takes its disk for dead.
const stuckWrite = 5 * time.Second

// giveUpPatience is how long a broker may take to end once a log of its is dead.
const giveUpPatience = 60 * time.Second

// onDisks starts a broker on these directories, under load.
func onDisks(t *testing.T, dirs ...string) (*run, *process.Process) {
	t.Helper()
	ports, err := process.Ports(2)
	if err != nil {
		t.Fatal(err)
	}
	seed := number(t, envSeed, rand.Uint64()%1e9)
	t.Logf("replay with %s=%d", envSeed, seed)
	r := &run{t: t, rng: rand.New(rand.NewPCG(seed, 0)), logs: make(map[string]int)}
	r.broker = process.Broker{Bin: skein(t), Data: dirs, Listen: ports[0], HTTP: ports[1],
		Args: []string{"--set", "group.initial.rebalance.delay.ms=0"}}
	r.load = &load.Load{Seeds: []string{ports[0]}, Seed: seed, H: history.New(), Patience: patience}
	p := r.start()
	t.Cleanup(func() {
		select {
		case <-p.Done():
		default:
			_ = p.Kill() // before its disk goes
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := errors.Join(r.load.Create(ctx), r.load.Begin()); err != nil {
		t.Fatal(err)
	}
	r.await(p, "acked", r.load.Acked, 500)
	return r, p
}

// answers is what producers without retries are told, and when first.
type answers struct {
	mu    sync.Mutex
	begun time.Time
	first map[string]time.Duration
	count map[string]int
	stop  func()
}

// ask has one producer without retries for each of some partitions, until stop is called.
func (r *run) ask() *answers {
	r.t.Helper()
	const partitions = 8
	r.createProbe(partitions)
	a := &answers{begun: time.Now(), first: map[string]time.Duration{}, count: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	var asking sync.WaitGroup
	for i := range partitions {
		cl, err := r.load.Client(kgo.RecordRetries(0), kgo.DisableIdempotentWrite(), kgo.UnknownTopicRetries(-1),
			kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProduceRequestTimeout(2*stuckWrite))
		if err != nil {
			r.t.Fatal(err)
		}
		asking.Go(func() {
			defer cl.Close()
			for ctx.Err() == nil {
				err := cl.ProduceSync(ctx, &kgo.Record{Topic: "probe", Partition: int32(i), Value: []byte("is the disk there?")}).FirstErr()
				if ctx.Err() == nil {
					a.note(err)
				}
				select {
				case <-ctx.Done():
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
	}
	a.stop = func() { cancel(); asking.Wait() }
	for end := time.Now().Add(patience); a.acked() < 8*partitions; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("nothing is acknowledged to producers without retries: %v", a.count)
		}
	}
	return a
}

func (r *run) createProbe(partitions int32) {
	r.t.Helper()
	cl, err := r.load.Client()
	if err != nil {
		r.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, -1, nil, "probe"); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		r.t.Fatal(err)
	}
}

func (a *answers) acked() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count["acked"]
}

// noticed is how many answers, or lacks of one, were no acknowledgement.
func (a *answers) noticed() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for what, k := range a.count {
		if what != "acked" {
			n += k
		}
	}
	return n
}

// afresh forgets what was answered before.
func (a *answers) afresh() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begun, a.first, a.count = time.Now(), map[string]time.Duration{}, map[string]int{}
}

func (a *answers) note(err error) {
	what := "acked"
	var code *kerr.Error
	switch {
	case errors.As(err, &code):
		what = code.Message
	case err != nil:
		what = "no answer"
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.count[what]++; a.count[what] == 1 {
		a.first[what] = time.Since(a.begun).Round(time.Millisecond)
	}
}

// judge reports codes that a client of a broker with a dead disk must not see, and logs the rest. The broker has ended, so that
// somebody notices, if not before then now. That anybody is told KAFKA_STORAGE_ERROR is not certain: the first to meet the error
// may be what prepares files, and the broker ends within milliseconds; requests that it has not read by then get no answer.
// commitlog's tests hold that what it has is refused so.
func (a *answers) judge(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(patience); a.noticed() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Error("producers noticed nothing of a dead disk")
			break
		}
	}
	a.stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	for what, n := range a.count {
		t.Logf("%6d × %s, first after %v", n, what, a.first[what])
		switch what {
		case "acked", "no answer", kerr.KafkaStorageError.Message, kerr.NotLeaderForPartition.Message:
		default:
			t.Errorf("a producer on a dead disk was told %s", what)
		}
	}
}

// gaveUp waits for the end of a broker whose disk is dead, which must say why.
func (r *run) gaveUp(p *process.Process, within time.Duration, words ...string) {
	r.t.Helper()
	begun := time.Now()
	select {
	case <-p.Done():
	case <-time.After(within):
		r.autopsy()
		r.t.Fatalf("the broker still runs %v after its disk died\n%s", within, p.Log())
	}
	var exit *exec.ExitError
	if !errors.As(p.Err(), &exit) || exit.ExitCode() != 1 {
		r.t.Errorf("the broker ended with %v, want exit code 1", p.Err())
	}
	r.t.Logf("the broker ended %v later:\n%s", time.Since(begun).Round(time.Millisecond), p.Log())
	r.says(p, words...)
	r.readLog(p)
}

func (r *run) says(p *process.Process, words ...string) {
	r.t.Helper()
	for _, w := range words {
		if !strings.Contains(p.Log(), w) {
			r.t.Errorf("the broker says nothing of %q:\n%s", w, p.Log())
		}
	}
}

// TestDiskDies has every call on a broker's disk end with EIO under load: nothing is acknowledged any more, producers are
// told KAFKA_STORAGE_ERROR, the broker ends and says why, and does not start until the disk is healed. Then nothing is lost.
func TestDiskDies(t *testing.T) {
	for _, c := range []struct {
		name string
		dirs func(plain, disk string) []string
	}{
		{"of the second log", func(plain, disk string) []string { return []string{plain, disk} }},
		{"the only one", func(_, disk string) []string { return []string{disk} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := faultdisk.Temp(t, diskBytes)
			r, p := onDisks(t, c.dirs(filepath.Join(t.TempDir(), "a"), filepath.Join(d.Dir, "b"))...)
			told := r.ask()
			told.afresh()
			if err := d.Fail(); err != nil {
				t.Fatal(err)
			}
			r.gaveUp(p, giveUpPatience, "input/output error")
			told.judge(t)

			again, err := r.broker.Spawn()
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-again.Done():
				r.says(again, "input/output error")
			case <-again.Served():
				t.Error("the broker serves on a dead disk")
				_ = again.Kill()
			}
			if err := d.Heal(); err != nil {
				t.Fatal(err)
			}
			p = r.start()
			r.await(p, "acked", r.load.Acked, r.load.Acked()+500)
			r.finish(p)
		})
	}
}

// TestDiskHangs lets every write to a broker's disk wait. A broker waits along for a while; then it takes the disk for
// dead, tells producers so, and ends. What it acknowledged is there when the disk goes on.
func TestDiskHangs(t *testing.T) {
	for _, c := range []struct {
		name string
		dirs func(plain, disk string) []string
	}{
		{"of the second log", func(plain, disk string) []string { return []string{plain, disk} }},
		{"the only one", func(_, disk string) []string { return []string{disk} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := faultdisk.Temp(t, diskBytes)
			r, p := onDisks(t, c.dirs(filepath.Join(t.TempDir(), "a"), filepath.Join(d.Dir, "b"))...)
			told := r.ask()
			r.hang(d, p, time.Second, told) // and a slow machine makes it longer
			r.await(p, "acked", r.load.Acked, r.load.Acked()+200)
			told.mu.Lock()
			if n := len(told.count); n != 1 || told.count["acked"] == 0 {
				t.Errorf("a short hang was not only waited out: %v", told.count)
			}
			told.mu.Unlock()
			r.hang(d, p, 10*time.Second, told)
			r.gaveUp(p, giveUpPatience, "stuck")
			told.judge(t)
			p = r.start()
			r.await(p, "acked", r.load.Acked, r.load.Acked()+500)
			r.finish(p)
		})
	}
}

// hang lets the disk hang for a while, and notes when the broker ended if it did meanwhile.
func (r *run) hang(d *faultdisk.Disk, p *process.Process, long time.Duration, told *answers) {
	r.t.Helper()
	told.afresh()
	if err := d.Hang(); err != nil {
		r.t.Fatal(err)
	}
	over := time.After(long)
	select {
	case <-p.Done():
		r.t.Logf("the broker ended %v into the hang", time.Since(told.begun).Round(time.Millisecond))
		<-over
	case <-over:
	}
	if err := d.Resume(); err != nil {
		r.t.Fatal(err)
	}
}
