package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Target is a kind of broker that can be started on an empty directory.
type Target interface {
	Name() string
	// TopicConfigs are set on every topic that a scenario creates.
	TopicConfigs() map[string]string
	// Start starts a broker whose data is in dir. The process is ended by Stop or Kill.
	Start(ctx context.Context, dir string) (*Running, error)
}

// Running is a broker process.
type Running struct {
	Addr    string
	Dir     string // where its data is
	PID     int
	Started time.Duration // from exec to serving
	stop    func(sig syscall.Signal) error

	writeOnly bool // there are no topics to create, and nothing can be read
}

// Stop ends the broker in order and waits for it.
func (r *Running) Stop() error { return r.stop(syscall.SIGTERM) }

// Kill ends the broker at once, as a crash would, and waits for it.
func (r *Running) Kill() error { return r.stop(syscall.SIGKILL) }

// Usage is what the broker has used since its start.
func (r *Running) Usage() (Usage, error) { return usageOf(r.PID) }

// Skein runs a skein binary with its defaults.
type Skein struct {
	Binary string
	Args   []string
}

// environment is this process's without the variables that skein reads: what is measured depends on what the
// report says, not on the shell that it was started from.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "SKEIN_") })
}

// Name implements Target.
func (Skein) Name() string { return "skein" }

// TopicConfigs implements Target.
func (Skein) TopicConfigs() map[string]string { return nil }

// Start implements Target.
func (s Skein) Start(ctx context.Context, dir string) (*Running, error) {
	return startBinary(ctx, s.Binary, dir, append([]string{"serve", "--data", dir, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"}, s.Args...)...)
}

// BareServer runs Bare as a process of its own, so that what it uses can be told apart.
type BareServer struct {
	Binary string // of skein
}

// Name implements Target.
func (BareServer) Name() string { return "bare" }

// TopicConfigs implements Target.
func (BareServer) TopicConfigs() map[string]string { return nil }

// Start implements Target.
func (s BareServer) Start(ctx context.Context, dir string) (*Running, error) {
	r, err := startBinary(ctx, s.Binary, dir, "bench", "bare", "--data", dir)
	if err != nil {
		return nil, err
	}
	r.writeOnly = true
	return r, nil
}

// startBinary runs a skein binary until its ready line.
func startBinary(ctx context.Context, binary, dir string, args ...string) (*Running, error) {
	cmd := exec.Command(binary, args...)
	cmd.Env = environment()
	var trouble bytes.Buffer
	cmd.Stderr = &trouble
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start skein: %w", err)
	}
	r := &Running{PID: cmd.Process.Pid, Dir: dir}
	r.stop = func(sig syscall.Signal) error {
		if err := cmd.Process.Signal(sig); err != nil {
			return err
		}
		err := cmd.Wait()
		if sig == syscall.SIGKILL {
			return nil
		}
		if err != nil {
			return fmt.Errorf("skein: %w: %s", err, trouble.String())
		}
		return nil
	}
	// A broker that hangs at its start must not hang the benchmark.
	watchdog := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer watchdog()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = cmd.Process.Kill()
		return nil, fmt.Errorf("start skein: no ready line: %w: %s", errors.Join(cmd.Wait(), context.Cause(ctx)), trouble.String())
	}
	r.Started = time.Since(begun)
	for field := range strings.FieldsSeq(line) {
		if addr, ok := strings.CutPrefix(field, "listen="); ok {
			r.Addr = addr
		}
	}
	if r.Addr == "" {
		return nil, errors.Join(fmt.Errorf("start skein: no listen= in %q", line), r.Kill())
	}
	return r, nil
}

// Kafka runs Apache Kafka by the project's script.
type Kafka struct {
	Script string // test/peer/kafka
	Port   int
	Flush  bool // flush.messages=1: durable before the ack, as Skein always is
}

// Name implements Target.
func (k Kafka) Name() string {
	if k.Flush {
		return "kafka-flush"
	}
	return "kafka"
}

// TopicConfigs implements Target.
func (k Kafka) TopicConfigs() map[string]string {
	if k.Flush {
		return map[string]string{"flush.messages": "1"}
	}
	return nil
}

// Start implements Target.
func (k Kafka) Start(ctx context.Context, dir string) (*Running, error) {
	port := strconv.Itoa(k.Port)
	begun := time.Now()
	out, err := k.script(ctx, "start", "-p", port, "log.dirs="+filepath.Join(dir, "kafka"))
	if err != nil {
		return nil, err
	}
	r := &Running{Addr: strings.TrimSpace(out), Dir: dir, Started: time.Since(begun)}
	out, err = k.script(ctx, "status", "-p", port)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Sscanf(out, "1 %d", &r.PID); err != nil {
		return nil, fmt.Errorf("start kafka: status says %q", out)
	}
	r.stop = func(sig syscall.Signal) error {
		if sig == syscall.SIGKILL {
			if err := syscall.Kill(r.PID, sig); err != nil {
				return err
			}
		}
		_, err := k.script(context.Background(), "stop", "-p", port)
		return err
	}
	return r, nil
}

func (k Kafka) script(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, k.Script, args...)
	var trouble bytes.Buffer
	cmd.Stderr = &trouble
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", k.Script, strings.Join(args, " "), err, trouble.String())
	}
	return string(out), nil
}

// firstAck is how long it takes from starting a broker on an empty directory to the first
// acknowledged record: topic creation included.
func firstAck(ctx context.Context, t Target, dir string) (time.Duration, error) {
	begun := time.Now()
	r, err := t.Start(ctx, dir)
	if err != nil {
		return 0, err
	}
	defer r.Kill() // the measurement is over
	topics := Topics{Prefix: "first", Count: 1, Partitions: 1}
	if err := createTopics(ctx, r.Addr, topics, t.TopicConfigs()); err != nil {
		return 0, err
	}
	_, err = Produce(ctx, r.Addr, ProduceLoad{Topics: topics, RecordBytes: 100, Records: 1, Parts: 1, Conns: 1, InFlight: 1, Acks: -1, Once: true})
	return time.Since(begun), err
}

// freshDir makes an empty directory below base.
func freshDir(base, name string) (string, error) {
	dir := filepath.Join(base, name)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}
