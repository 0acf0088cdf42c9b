package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// runner is one client process that serves cases; see README.md for its lines.
type runner struct {
	version string

	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string
	log   *caseLog
	done  sync.WaitGroup
}

// caseLog keeps what a client wrote since the last case began, up to a limit.
type caseLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

const caseLogLimit = 4 << 20

func (l *caseLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := caseLogLimit - l.text.Len(); room > 0 {
		l.text.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

// take returns the text and begins anew.
func (l *caseLog) take() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := slices.Clone(l.text.Bytes())
	l.text.Reset()
	return out
}

func startRunner(ctx context.Context, argv []string) (*runner, error) {
	r := &runner{cmd: exec.Command(argv[0], argv[1:]...), lines: make(chan string), log: &caseLog{}}
	r.cmd.Stderr = r.log
	r.cmd.WaitDelay = time.Second
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that kcat's processes go with their runner
	var err error
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start client: %w", err)
	}
	r.done.Go(func() { r.read(stdout) })
	line, err := r.next(ctx, 30*time.Second, "hello")
	if err != nil {
		r.kill()
		return nil, fmt.Errorf("start client: %w: %s", err, r.log.take())
	}
	r.version = line[0]
	return r, nil
}

// read hands protocol lines on and puts the rest of the output into the log.
func (r *runner) read(stdout io.Reader) {
	defer close(r.lines)
	in := bufio.NewReader(stdout)
	for {
		line, err := in.ReadString('\n')
		if strings.HasPrefix(line, "hello\t") || strings.HasPrefix(line, "done\t") {
			r.lines <- strings.TrimSuffix(line, "\n")
		} else {
			r.log.Write([]byte(line))
		}
		if err != nil {
			return
		}
	}
}

var errClientEnded = errors.New("client process ended")

func (r *runner) next(ctx context.Context, limit time.Duration, verb string) ([]string, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case line, ok := <-r.lines:
		f := strings.Split(line, "\t")
		if !ok {
			return nil, errClientEnded
		}
		if f[0] != verb || len(f) < 2 {
			return nil, fmt.Errorf("client said %q, want %s", line, verb)
		}
		return f[1:], nil
	case <-timer.C:
		return nil, fmt.Errorf("no answer after %v", limit)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// ask sends one case. The status is pass, fail or n/a; an error means that the
// process is of no more use.
func (r *runner) ask(ctx context.Context, limit time.Duration, params map[string]string) (status, text string, err error) {
	r.log.take()
	var line strings.Builder
	for _, k := range slices.Sorted(maps.Keys(params)) {
		fmt.Fprintf(&line, "%s=%s\t", k, params[k])
	}
	if _, err := io.WriteString(r.stdin, strings.TrimSuffix(line.String(), "\t")+"\n"); err != nil {
		return "", "", fmt.Errorf("send case: %w", err)
	}
	f, err := r.next(ctx, limit, "done")
	if err != nil {
		return "", "", err
	}
	return f[0], strings.Join(f[1:], " "), nil
}

// end closes the input, which ends the process, and waits for it.
func (r *runner) end() {
	r.stdin.Close()
	t := time.AfterFunc(5*time.Second, func() { syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL) })
	defer t.Stop()
	r.drain()
}

func (r *runner) kill() {
	if r.cmd.Process != nil {
		// A JVM prints its stacks on SIGQUIT: they show where it hangs.
		if strings.HasSuffix(r.cmd.Path, "java") {
			r.cmd.Process.Signal(syscall.SIGQUIT)
			time.Sleep(300 * time.Millisecond)
		}
		syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	}
	r.stdin.Close()
	r.drain()
}

func (r *runner) drain() {
	for range r.lines {
	}
	r.done.Wait()
	if err := r.cmd.Wait(); err != nil {
		fmt.Fprintf(r.log, "client process: %v\n", err)
	}
}

func saveLog(path string, text []byte) { os.WriteFile(path, text, 0o644) }
