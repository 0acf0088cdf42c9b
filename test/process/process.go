// Package process runs the real binary for the process tests: it builds it once, starts a broker on fixed ports, waits
// for its ready line, kills it, reads its memory from /proc and keeps what it printed. It knows nothing of Kafka.
package process

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Build returns the path of the binary: that of the environment variable SKEIN_BIN, or one that it builds into dir from
// the module that holds the working directory.
func Build(dir string) (string, error) {
	if bin := os.Getenv("SKEIN_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	bin := filepath.Join(dir, "skein")
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/skein")
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(out)))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build skein: %w: %s", err, out)
	}
	return bin, nil
}

// Ports returns n addresses on loopback that are free now, of a block that is this process's own and below the range from which
// the kernel gives ports to clients, so that a broker that is down for a moment does not lose its port. SKEIN_TEST_PORTS=LOW-HIGH
// sets the range of all blocks.
func Ports(n int) ([]string, error) {
	low, high := 18000, 31000
	if s := os.Getenv("SKEIN_TEST_PORTS"); s != "" {
		if _, err := fmt.Sscanf(s, "%d-%d", &low, &high); err != nil || low >= high {
			return nil, fmt.Errorf("SKEIN_TEST_PORTS=%s: want LOW-HIGH", s)
		}
	}
	ours.Lock()
	defer ours.Unlock()
	if ours.guard == nil {
		if err := ours.claim(low, high); err != nil {
			return nil, err
		}
	}
	var out []string
	for port := ours.first + 1; port < ours.end && len(out) < n; port++ {
		l, err := net.Listen("tcp", loopback(port))
		if err != nil {
			continue
		}
		l.Close()
		out = append(out, loopback(port))
	}
	if len(out) < n {
		return nil, fmt.Errorf("find %d free ports in %d-%d", n, ours.first+1, ours.end-1)
	}
	return out, nil
}

// block is the ports from which one process of tests takes its own. It listens at the first of them as long as it lives, so that
// no other process of tests takes any of the block, not even those of a broker that is down for a moment.
type block struct {
	sync.Mutex
	guard      net.Listener
	first, end int
}

// blockPorts is far more than one test needs at a time.
const blockPorts = 200

var ours block

func (b *block) claim(low, high int) error {
	size := min(blockPorts, high-low)
	blocks := (high - low) / size
	for i := range blocks {
		first := low + (os.Getpid()+i)%blocks*size
		ln, err := net.Listen("tcp", loopback(first))
		if err != nil {
			continue
		}
		b.guard, b.first, b.end = ln, first, first+size
		return nil
	}
	return fmt.Errorf("find a free block of %d ports in %d-%d", size, low, high)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Broker describes how to start one.
type Broker struct {
	Bin    string
	Data   []string
	Listen string
	HTTP   string
	Args   []string // further arguments
	Env    []string // further environment
	Prefix []string // a command that runs the broker's, such as nsenter --net=FILE
}

// Process is a running broker.
type Process struct {
	Ready  time.Duration // from exec to the ready line
	Line   string        // the ready line; valid after Served
	cmd    *exec.Cmd
	done   chan struct{} // closed when the process has ended
	err    error         // of Wait; valid after done
	served chan struct{} // closed at the ready line

	signalled atomic.Bool

	mu  sync.Mutex
	log bytes.Buffer
}

// maxLog bounds what is kept of a broker's log.
const maxLog = 8 << 20

// Write collects the broker's log.
func (p *Process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if room := maxLog - p.log.Len(); room > 0 {
		p.log.Write(b[:min(room, len(b))])
	}
	return len(b), nil
}

// Log is what the broker has written to standard error.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// Spawn starts a broker and does not wait until it serves.
func (b Broker) Spawn() (*Process, error) {
	args := append([]string{"serve", "--data", strings.Join(b.Data, ","), "--listen", b.Listen, "--http", b.HTTP}, b.Args...)
	p := &Process{done: make(chan struct{}), served: make(chan struct{})}
	argv := append(append(slices.Clone(b.Prefix), b.Bin), args...)
	p.cmd = exec.Command(argv[0], argv[1:]...)
	own := func(kv string) bool { return strings.HasPrefix(kv, "SKEIN_") } // ours, not the broker's
	p.cmd.Env = append(slices.DeleteFunc(os.Environ(), own), b.Env...)
	p.cmd.Stderr = p
	p.cmd.SysProcAttr = Tied()
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	go func() {
		r := bufio.NewReader(out)
		for {
			line, err := r.ReadString('\n')
			if strings.HasPrefix(line, "ready ") {
				p.Line = strings.TrimSpace(line)
				close(p.served)
				break
			}
			if err != nil {
				break
			}
		}
		io.Copy(io.Discard, r)
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// dumpPatience is how long a process may take to print its goroutines.
const dumpPatience = 20 * time.Second

// Served is closed when the broker has said that it serves.
func (p *Process) Served() <-chan struct{} { return p.served }

// Await waits until a spawned broker serves. On failure the process has ended.
func (p *Process) Await(patience time.Duration) error {
	select {
	case <-p.served:
		return nil
	case <-p.done:
		return fmt.Errorf("broker ended before it was ready: %w\n%s", p.err, p.Log())
	case <-time.After(patience):
		p.cmd.Process.Signal(syscall.SIGQUIT) // Go prints every goroutine
		select {
		case <-p.done:
		case <-time.After(dumpPatience):
			p.Kill()
		}
		return fmt.Errorf("broker not ready after %v\n%s", patience, p.Log())
	}
}

// Pause stops the process without its noticing (SIGSTOP); Continue lets it go on.
func (p *Process) Pause() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue lets a paused process go on.
func (p *Process) Continue() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// Start starts a broker and waits until it serves. On failure the process has ended.
func (b Broker) Start(patience time.Duration) (*Process, error) {
	begin := time.Now()
	p, err := b.Spawn()
	if err != nil {
		return nil, err
	}
	if err := p.Await(patience); err != nil {
		return nil, err
	}
	p.Ready = time.Since(begin)
	return p, nil
}

// Pid is the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how the process ended; nil while it runs and after exit code 0.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Kill ends the process with SIGKILL and waits for its end. It reports an error if it had ended before by itself.
func (p *Process) Kill() error {
	select {
	case <-p.done:
		return fmt.Errorf("broker had ended by itself: %w\n%s", p.err, p.Log())
	default:
	}
	p.cmd.Process.Kill()
	<-p.done
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		if st, ok := exit.Sys().(syscall.WaitStatus); ok && st.Signaled() && st.Signal() == syscall.SIGKILL {
			return nil
		}
	}
	return fmt.Errorf("broker ended by itself: %w\n%s", p.err, p.Log())
}

// Signal sends SIGTERM and does not wait.
func (p *Process) Signal() {
	p.signalled.Store(true)
	p.cmd.Process.Signal(syscall.SIGTERM)
}

// Signalled reports whether the process was asked to stop, so that its end is no surprise.
func (p *Process) Signalled() bool { return p.signalled.Load() }

// Stop sends SIGTERM; the process must exit with code 0 in time. It returns how long that took.
func (p *Process) Stop(patience time.Duration) (time.Duration, error) {
	begin := time.Now()
	p.Signal()
	select {
	case <-p.done:
		if p.err != nil {
			return time.Since(begin), fmt.Errorf("broker after SIGTERM: %w\n%s", p.err, p.Log())
		}
		return time.Since(begin), nil
	case <-time.After(patience):
		p.cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-p.done:
		case <-time.After(dumpPatience):
			p.cmd.Process.Kill()
			<-p.done
		}
		return time.Since(begin), fmt.Errorf("broker still there %v after SIGTERM\n%s", patience, p.Log())
	}
}

// Memory returns resident memory, its peak, and the number of open descriptors.
func (p *Process) Memory() (rss, peak int64, descriptors int, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		return 0, 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "VmRSS:":
			rss = kib << 10
		case "VmHWM:":
			peak = kib << 10
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pid()))
	return rss, peak, len(fds), err
}
