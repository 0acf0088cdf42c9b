package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// FleetKind is a kind of cluster that can be started on an empty directory.
type FleetKind interface {
	Name() string
	// TopicConfigs are set on every topic that a scenario creates.
	TopicConfigs() map[string]string
	// Launch starts n brokers and returns when all of them serve.
	Launch(ctx context.Context, dir string, n int) (Fleet, error)
}

// Fleet is a running cluster. Brokers have ids from 1.
type Fleet interface {
	Seeds() []string
	IDs() []int
	Addr(id int) string // for Kafka clients
	PID(id int) int
	Signal(id int, sig syscall.Signal) error
	Await(id int) error // the end of a process that was told to end
	Start(ctx context.Context, id int) error
	// Between are the ports that only brokers connect to.
	Between() []int
	Close() error
}

// SkeinFleet runs clusters of a skein binary.
type SkeinFleet struct {
	Binary string
	Port   int // the first of ten for each broker
	Args   []string
	// Said is a folder for what the brokers say, verbosely, one file each; "": only what is wrong, in errors.
	Said string
}

// Name implements FleetKind.
func (SkeinFleet) Name() string { return "skein" }

// TopicConfigs implements FleetKind.
func (SkeinFleet) TopicConfigs() map[string]string { return nil }

// Launch implements FleetKind. One broker forms no cluster.
func (s SkeinFleet) Launch(ctx context.Context, dir string, n int) (Fleet, error) {
	f := &skeinFleet{kind: s, dir: dir, voters: min(n, 3), alone: n == 1}
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		f.procs = append(f.procs, nil)
		wg.Go(func() { errs[i] = f.Start(ctx, i+1) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

type skeinFleet struct {
	kind   SkeinFleet
	dir    string
	voters int
	alone  bool

	mu    sync.Mutex
	procs []*skeinProc // by id - 1
}

// skeinProc is one process.
type skeinProc struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // valid after done
	log  bytes.Buffer
}

func (f *skeinFleet) addr(id, offset int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(f.kind.Port+10*(id-1)+offset))
}

// Seeds implements Fleet.
func (f *skeinFleet) Seeds() (out []string) {
	for _, id := range f.IDs() {
		out = append(out, f.addr(id, 0))
	}
	return out
}

// IDs implements Fleet.
func (f *skeinFleet) IDs() (out []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.procs {
		out = append(out, i+1)
	}
	return out
}

// Addr implements Fleet.
func (f *skeinFleet) Addr(id int) string { return f.addr(id, 0) }

// HTTP is the address of a broker's operators' API.
func (f *skeinFleet) HTTP(id int) string { return f.addr(id, 2) }

func (f *skeinFleet) proc(id int) *skeinProc {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.procs[id-1]
}

// PID implements Fleet.
func (f *skeinFleet) PID(id int) int { return f.proc(id).cmd.Process.Pid }

// Signal implements Fleet.
func (f *skeinFleet) Signal(id int, sig syscall.Signal) error {
	return f.proc(id).cmd.Process.Signal(sig)
}

// Await implements Fleet.
func (f *skeinFleet) Await(id int) error {
	p := f.proc(id)
	select {
	case <-p.done:
		return nil
	case <-time.After(time.Minute):
		return fmt.Errorf("skein broker %d does not end: %s", id, p.log.String())
	}
}

// Between implements Fleet.
func (f *skeinFleet) Between() (out []int) {
	for _, id := range f.IDs() {
		out = append(out, f.kind.Port+10*(id-1)+1)
	}
	return out
}

// grow makes room for one broker more and starts it.
func (f *skeinFleet) grow(ctx context.Context) (id int, err error) {
	f.mu.Lock()
	f.procs = append(f.procs, nil)
	id = len(f.procs)
	f.mu.Unlock()
	return id, f.Start(ctx, id)
}

// said opens the file to which all processes of a broker add.
func (f *skeinFleet) said(id int) (*os.File, error) {
	if err := os.MkdirAll(f.kind.Said, 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(f.kind.Said, strconv.Itoa(id)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
}

// Start implements Fleet.
func (f *skeinFleet) Start(ctx context.Context, id int) error {
	args := []string{"serve", "--node-id", strconv.Itoa(id), "--data", filepath.Join(f.dir, strconv.Itoa(id)), "--listen", f.addr(id, 0), "--http", f.addr(id, 2)}
	if !f.alone {
		var peers, join []string
		for v := 1; v <= f.voters; v++ {
			peers = append(peers, fmt.Sprintf("%d@%s", v, f.addr(v, 1)))
			join = append(join, f.addr(v, 1))
		}
		args = append(args, "--internal", f.addr(id, 1))
		if id <= f.voters {
			args = append(args, "--peers", strings.Join(peers, ","))
		} else {
			args = append(args, "--join", strings.Join(join, ","))
		}
	}
	p := &skeinProc{cmd: exec.Command(f.kind.Binary, append(args, f.kind.Args...)...), done: make(chan struct{})}
	p.cmd.Env, p.cmd.Stderr = environment(), &p.log
	if f.kind.Said != "" {
		said, err := f.said(id)
		if err != nil {
			return err
		}
		defer said.Close() // the child has its own
		p.cmd.Args, p.cmd.Stderr = append(p.cmd.Args, "--verbose"), said
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start skein: %w", err)
	}
	f.mu.Lock()
	f.procs[id-1] = p
	f.mu.Unlock()
	lines := bufio.NewReader(out)
	ready := make(chan error, 1)
	go func() {
		_, err := lines.ReadString('\n')
		ready <- err
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	select {
	case err = <-ready:
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-time.After(time.Minute):
		err = errors.New("not ready after a minute")
	}
	if err != nil {
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("start skein broker %d: %w: %s", id, err, p.log.String())
	}
	return nil
}

// Close implements Fleet: it ends all processes at once.
func (f *skeinFleet) Close() error {
	for _, p := range f.procs {
		if p != nil {
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
	return nil
}

// KafkaFleet runs clusters of Apache Kafka by the project's script, with replication factor 3 and min.insync.replicas=2.
type KafkaFleet struct {
	Script string
	Port   int // the first of ten for each broker
	Heap   string
}

// Name implements FleetKind.
func (KafkaFleet) Name() string { return "kafka" }

// TopicConfigs implements FleetKind.
func (KafkaFleet) TopicConfigs() map[string]string {
	return map[string]string{"min.insync.replicas": "2"}
}

// Launch implements FleetKind.
func (k KafkaFleet) Launch(ctx context.Context, dir string, n int) (Fleet, error) {
	f := &kafkaFleet{kind: k, n: n}
	_, err := f.script(ctx, "start", "-n", strconv.Itoa(n), "-p", strconv.Itoa(k.Port), "-d", dir)
	if err != nil {
		return nil, err
	}
	return f, nil
}

type kafkaFleet struct {
	kind KafkaFleet
	n    int
}

func (f *kafkaFleet) script(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, f.kind.Script, args...)
	if f.kind.Heap != "" {
		cmd.Env = append(os.Environ(), "HEAP="+f.kind.Heap)
	}
	var trouble bytes.Buffer
	cmd.Stderr = &trouble
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", f.kind.Script, strings.Join(args, " "), err, trouble.String())
	}
	return string(out), nil
}

// Seeds implements Fleet.
func (f *kafkaFleet) Seeds() (out []string) {
	for _, id := range f.IDs() {
		out = append(out, f.Addr(id))
	}
	return out
}

// IDs implements Fleet.
func (f *kafkaFleet) IDs() (out []int) {
	for i := range f.n {
		out = append(out, i+1)
	}
	return out
}

// Addr implements Fleet.
func (f *kafkaFleet) Addr(id int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(f.kind.Port+10*(id-1)))
}

// Between implements Fleet: what replicas fetch, and the controllers' quorum.
func (f *kafkaFleet) Between() (out []int) {
	for _, id := range f.IDs() {
		out = append(out, f.kind.Port+10*(id-1)+1, f.kind.Port+10*(id-1)+2)
	}
	return out
}

// PID implements Fleet; 0: it does not run.
func (f *kafkaFleet) PID(id int) int {
	out, err := f.script(context.Background(), "status", "-p", strconv.Itoa(f.kind.Port))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(out) {
		var i, pid int
		if n, _ := fmt.Sscan(line, &i, &pid); n == 2 && i == id {
			return pid
		}
	}
	return 0
}

// Signal implements Fleet.
func (f *kafkaFleet) Signal(id int, sig syscall.Signal) error {
	pid := f.PID(id)
	if pid == 0 {
		return fmt.Errorf("kafka broker %d does not run", id)
	}
	return syscall.Kill(pid, sig)
}

// Await implements Fleet.
func (f *kafkaFleet) Await(id int) error {
	for end := time.Now().Add(time.Minute); f.PID(id) != 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("kafka broker %d does not end", id)
		}
	}
	return nil
}

// Start implements Fleet.
func (f *kafkaFleet) Start(ctx context.Context, id int) error {
	_, err := f.script(ctx, "again", "-p", strconv.Itoa(f.kind.Port), strconv.Itoa(id))
	return err
}

// Close implements Fleet.
func (f *kafkaFleet) Close() error {
	for _, id := range f.IDs() {
		if pid := f.PID(id); pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	_, err := f.script(context.Background(), "stop", "-p", strconv.Itoa(f.kind.Port))
	return err
}

// fleetUsage sums what all brokers have used since they were started.
func fleetUsage(f Fleet) (sum Usage, err error) {
	for _, id := range f.IDs() {
		u, err := usageOf(f.PID(id))
		if err != nil {
			return sum, err
		}
		sum.CPU += u.CPU
		sum.RSS += u.RSS
		sum.DiskWrites += u.DiskWrites
	}
	return sum, nil
}

// socketBytes sums what has been sent on all connections of which one end is one of the ports, in both directions, by
// what the kernel counts as acknowledged on each socket (ss -ti). A connection that ended is not in it.
func socketBytes(ports []int) (int64, error) {
	out, err := exec.Command("ss", "-Htin", "state", "established").Output()
	if err != nil {
		return 0, fmt.Errorf("ss: %w", err)
	}
	return sumSocketBytes(string(out), ports), nil
}

// sumSocketBytes reads pairs of lines: addresses, then counters.
func sumSocketBytes(text string, ports []int) (sum int64) {
	ours := false
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if line[0] != ' ' && line[0] != '\t' {
			ours = false
			for _, a := range f {
				if _, p, err := net.SplitHostPort(a); err == nil {
					n, err := strconv.Atoi(p)
					ours = ours || err == nil && slices.Contains(ports, n)
				}
			}
			continue
		}
		if !ours {
			continue
		}
		for _, kv := range f {
			if v, ok := strings.CutPrefix(kv, "bytes_acked:"); ok {
				n, _ := strconv.ParseInt(v, 10, 64)
				sum += n
			}
		}
	}
	return sum
}
