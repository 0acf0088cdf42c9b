package goclient

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/skeinmq/skein/test/conformance/record"
)

// kcat is the command-line program of that name. It has no admin calls, sets no
// timestamps, and gives all records of one run the same headers.
type kcat struct {
	bootstrap string
	faults    bool
}

// patience makes kcat go on after errors that librdkafka goes on after.
func (k *kcat) patience() []string {
	if k.faults {
		return []string{"-E"}
	}
	return nil
}

// Fields end with 0x1f and records with 0x1e; no reference record holds either.
const kcatFormat = "%p\x1f%o\x1f%T\x1f%K\x1f%k\x1f%S\x1f%s\x1f%h\x1e"

func (k *kcat) Close() {}

func (k *kcat) Admin() (adminSteps, error) {
	return adminSteps{}, fmt.Errorf("%w: kcat has no admin calls", errNoAPI)
}

func (k *kcat) run(ctx context.Context, stdin io.Reader, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "kcat", append([]string{"-b", k.bootstrap, "-m", "20", "-X", "log.connection.close=false"}, append(k.patience(), args...)...)...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = stdin, &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("kcat %q: %w: %s", args, err, stderr.String())
	}
	return out, nil
}

func (k *kcat) Produce(ctx context.Context, topic, codec string, idempotent bool, recs []record.Record) error {
	input := map[int32]*bytes.Buffer{}
	for _, r := range recs {
		if input[r.Partition] == nil {
			input[r.Partition] = &bytes.Buffer{}
		}
		fmt.Fprintf(input[r.Partition], "%s\x1f%s\x1e", r.Key, r.Value)
	}
	for p, in := range input {
		args := []string{"-P", "-t", topic, "-p", strconv.Itoa(int(p)), "-K", "\x1f", "-D", "\x1e", "-Z", "-X", "acks=all", "-X", "linger.ms=50"}
		if codec != "none" {
			args = append(args, "-z", codec)
		}
		if idempotent {
			args = append(args, "-X", "enable.idempotence=true")
		}
		for _, h := range recs[0].Headers {
			args = append(args, "-H", h.Key+"="+string(h.Value))
		}
		if _, err := k.run(ctx, in, args...); err != nil {
			return err
		}
	}
	return nil
}

func parseKcat(line []byte) (record.Record, error) {
	f := bytes.Split(bytes.TrimSuffix(line, []byte{0x1e}), []byte{0x1f})
	if len(f) != 8 {
		return record.Record{}, fmt.Errorf("parse kcat output: %d fields in %q", len(f), line)
	}
	num := func(i int) int64 { n, _ := strconv.ParseInt(string(f[i]), 10, 64); return n }
	r := record.Record{Partition: int32(num(0)), Offset: num(1), Timestamp: num(2)}
	if num(3) >= 0 {
		r.Key = f[4]
	}
	if num(5) >= 0 {
		r.Value = f[6]
	}
	for _, h := range bytes.Split(f[7], []byte{','}) {
		if name, value, ok := bytes.Cut(h, []byte{'='}); ok {
			r.Headers = append(r.Headers, record.Header{Key: string(name), Value: value})
		}
	}
	return r, nil
}

func (k *kcat) Read(ctx context.Context, topic string, partition int32, offset int64, n int) ([]record.Record, error) {
	at := strconv.FormatInt(offset, 10)
	if offset == -2 {
		at = "beginning"
	}
	out, err := k.run(ctx, nil, "-C", "-q", "-t", topic, "-p", strconv.Itoa(int(partition)), "-o", at, "-c", strconv.Itoa(n), "-f", kcatFormat)
	if err != nil {
		return nil, err
	}
	var recs []record.Record
	for _, line := range bytes.SplitAfter(out, []byte{0x1e}) {
		if len(line) == 0 {
			continue
		}
		r, err := parseKcat(line)
		if err != nil {
			return nil, err
		}
		recs = append(recs, r)
	}
	return recs, nil
}

var kcatOffset = regexp.MustCompile(`offset (-?\d+)`)

func (k *kcat) OffsetAt(ctx context.Context, topic string, ms int64) (int64, error) {
	out, err := k.run(ctx, nil, "-Q", "-t", fmt.Sprintf("%s:0:%d", topic, ms))
	if err != nil {
		return 0, err
	}
	m := kcatOffset.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("kcat -Q: no offset in %q", out)
	}
	return strconv.ParseInt(string(m[1]), 10, 64)
}

func (k *kcat) Committed(context.Context, string, string) (int64, error) {
	return 0, fmt.Errorf("%w: kcat does not show committed offsets", errNoAPI)
}

// kcatMember is one running `kcat -G`. It commits by itself: often, and when it leaves.
type kcatMember struct {
	cmd    *exec.Cmd
	out    chan record.Record
	failed chan error
	ended  chan struct{}
	stop   context.CancelFunc
	done   sync.WaitGroup
	faults bool

	mu   sync.Mutex
	held []int32 // guarded by mu
}

func (k *kcat) Join(_ context.Context, group, topic string, max int) (Member, error) {
	args := []string{"-b", k.bootstrap, "-G", group, "-u", "-f", kcatFormat, "-X", "auto.offset.reset=earliest", "-X", "auto.commit.interval.ms=100",
		"-X", "heartbeat.interval.ms=300", "-X", "fetch.wait.max.ms=250"}
	args = append(args, k.patience()...)
	if max > 0 {
		args = append(args, "-c", strconv.Itoa(max))
	}
	ctx, stop := context.WithCancel(context.Background())
	m := &kcatMember{cmd: exec.Command("kcat", append(args, topic)...), out: make(chan record.Record), failed: make(chan error, 16), faults: k.faults, ended: make(chan struct{}), stop: stop}
	stdout, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := m.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	m.done.Go(func() { m.readRecords(ctx, stdout) })
	m.done.Go(func() { m.readRebalances(stderr) })
	go func() { // ends with the process, which Close awaits
		m.done.Wait()
		m.cmd.Wait()
		close(m.ended)
	}()
	return m, nil
}

func (m *kcatMember) readRecords(ctx context.Context, out io.Reader) {
	in := bufio.NewReader(out)
	for {
		line, err := in.ReadBytes(0x1e)
		if err != nil {
			return
		}
		r, err := parseKcat(line)
		if err != nil {
			m.failed <- err
			return
		}
		select {
		case m.out <- r:
		case <-ctx.Done():
			io.Copy(io.Discard, in)
			return
		}
	}
}

var kcatPartition = regexp.MustCompile(`\[(\d+)\]`)

func (m *kcatMember) readRebalances(stderr io.Reader) {
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		line := lines.Text()
		var parts []int32
		_, list, _ := strings.Cut(line, "): ")
		for _, f := range kcatPartition.FindAllStringSubmatch(list, -1) {
			n, _ := strconv.ParseInt(f[1], 10, 32)
			parts = append(parts, int32(n))
		}
		slices.Sort(parts)
		m.mu.Lock()
		switch {
		case strings.HasPrefix(list, "assigned"):
			m.held = parts
		case strings.HasPrefix(list, "revoked"):
			m.held = nil
		case strings.Contains(line, "ERROR") && !m.faults:
			select {
			case m.failed <- errors.New(line):
			default:
			}
		}
		m.mu.Unlock()
	}
}

func (m *kcatMember) Poll(ctx context.Context) ([]record.Record, error) {
	return drain(ctx, m.out, m.failed)
}

func (m *kcatMember) Assignment() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.held)
}

// Commit does nothing: kcat commits what it printed, at the latest when it leaves.
func (m *kcatMember) Commit(context.Context, map[int32]int64) error { return nil }

func (m *kcatMember) Close() error {
	m.stop()
	m.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.ended:
		return nil
	case <-time.After(10 * time.Second):
		m.cmd.Process.Kill()
		<-m.ended
		return errors.New("kcat did not leave its group within 10 s of SIGTERM")
	}
}
