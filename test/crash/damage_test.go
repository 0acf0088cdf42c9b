package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skeinmq/skein/test/process"
)

// TestDamagedRecords changes one byte of one acked batch on the disk of a stopped broker, and takes the index of its log file
// away: only that batch is refused, with a code that clients do not retry in silence, and operators are told where.
func TestDamagedRecords(t *testing.T) {
	const batches, damaged = 30, 11
	addrs, err := process.Ports(2)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "d")
	b := process.Broker{Bin: skein(t), Data: []string{dir}, Listen: addrs[0], HTTP: addrs[1], Args: []string{"--set", "num.partitions=1"}}
	p := startOn(t, b)
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Listen), kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(-1), kgo.DefaultProduceTopic("t"),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepRetryableFetchErrors())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i := range batches {
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord(recordText(i))).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	stopNow(t, p)
	damage(t, dir, recordText(damaged))

	for round := range 2 {
		p := startOn(t, b)
		at := readAround(t, cl, batches)
		if len(at) != 1 || at[0] != damaged {
			t.Errorf("start %d: corrupt at offsets %v, want %d", round, at, damaged)
		}
		if m := damagedRanges(t, b.HTTP); m != "1" {
			t.Errorf("start %d: metrics tell of %q damaged ranges", round, m)
		}
		stopNow(t, p) // now all that it wrote is in the log
		if !strings.Contains(p.Log(), "records on the disk are damaged") {
			t.Errorf("start %d: the log is silent:\n%s", round, p.Log())
		}
		cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{"t": {0: {Epoch: -1, Offset: 0}}})
	}
	out, err := exec.Command(skein(t), "log", "verify", dir).CombinedOutput()
	if _, failed := errors.AsType[*exec.ExitError](err); !failed || !bytes.Contains(out, []byte("damaged: ")) {
		t.Errorf("log verify: %v\n%s", err, out)
	}
}

func recordText(i int) string {
	return fmt.Sprintf("record number %d of a log that will be damaged", i)
}

func startOn(t *testing.T, b process.Broker) *process.Process {
	t.Helper()
	p, err := b.Start(startPatience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-p.Done():
		default:
			_ = p.Kill()
		}
	})
	return p
}

func stopNow(t *testing.T, p *process.Process) {
	t.Helper()
	if _, err := p.Stop(stopPatience); err != nil {
		t.Fatal(err)
	}
}

// damage changes the last byte of a text in the one log file that holds it, and removes the file's index.
func damage(t *testing.T, dir, text string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "log", "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		head, err := io.ReadAll(io.LimitReader(f, 4<<20))
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(head, []byte(text))
		if at < 0 {
			continue
		}
		if _, err := f.WriteAt([]byte{'X'}, int64(at+len(text)-1)); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(name[:len(name)-len(".log")] + ".idx"); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("%q is in none of %v", text, names)
}

// readAround reads every record in order, goes on behind offsets at which it is told CORRUPT_MESSAGE, and returns these.
func readAround(t *testing.T, cl *kgo.Client, n int) (corrupt []int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for next := int64(0); next < int64(n); {
		fs := cl.PollFetches(ctx)
		for _, e := range fs.Errors() {
			if !errors.Is(e.Err, kerr.CorruptMessage) {
				if kerr.IsRetriable(e.Err) { // of a broker that has just started
					continue
				}
				t.Fatalf("at offset %d: %v", next, e.Err)
			}
			corrupt = append(corrupt, next)
			next++
			cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{"t": {0: {Epoch: -1, Offset: next}}})
		}
		fs.EachRecord(func(r *kgo.Record) {
			if r.Offset != next || string(r.Value) != recordText(int(next)) {
				t.Fatalf("offset %d is %q, want offset %d", r.Offset, r.Value, next)
			}
			next++
		})
	}
	return corrupt
}

// damagedRanges is what the metrics of a broker with one log say.
func damagedRanges(t *testing.T, addr string) string {
	t.Helper()
	rs, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer rs.Body.Close()
	text, err := io.ReadAll(rs.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^skein_commitlog_damaged_ranges\{.*\} (.*)$`).FindSubmatch(text)
	if m == nil {
		return ""
	}
	return string(m[1])
}
