package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// cluster is `skein dev`, and how it is told what to do.
type cluster struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	data  string
	ended chan error

	faults sync.WaitGroup
	stop   context.CancelFunc // ends the faults
	kills  int
	err    error // of a command; read after faults
}

// basePort finds a port so that it, and what `skein dev` uses after it, is free.
func basePort(o options) (int, error) {
	if o.basePort != 0 {
		return o.basePort, nil
	}
	for range 50 {
		port, err := freePort()
		if err != nil {
			return 0, err
		}
		base, _ := strconv.Atoi(port)
		free := base+10*o.brokers+3 < 1<<16
		for i := 0; free && i < 10*o.brokers; i++ {
			if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(base+i))); err != nil {
				free = false
			} else {
				l.Close()
			}
		}
		if free {
			return base, nil
		}
	}
	return 0, errors.New("find free ports: none in a row")
}

// startCluster starts brokers and waits until all are ready. Clients are told the first one.
func startCluster(ctx context.Context, o options) (*broker, error) {
	base, err := basePort(o)
	if err != nil {
		return nil, err
	}
	data, err := os.MkdirTemp("", "skein-conformance-")
	if err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	c := &cluster{data: data, ended: make(chan error, 1)}
	c.cmd = exec.Command(o.skein, "dev", "--brokers", strconv.Itoa(o.brokers), "--data", data, "--base-port", strconv.Itoa(base))
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := os.Create(filepath.Join(o.logs, "dev.log"))
	if err != nil {
		return nil, fmt.Errorf("make log: %w", err)
	}
	defer log.Close()
	c.cmd.Stderr = log
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.skein, err)
	}
	ready := make(chan string, 100)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "ready ") {
				select {
				case ready <- lines.Text():
				default:
				}
			}
		}
		c.ended <- c.cmd.Wait()
	}()
	limit := time.After(60 * time.Second)
	for n := 0; n < o.brokers; n++ {
		select {
		case <-ready:
		case err := <-c.ended:
			return nil, fmt.Errorf("start %s: it ended before all brokers were ready: %w", o.skein, err)
		case <-limit:
			c.end(o)
			return nil, fmt.Errorf("start %s: %d of %d brokers were ready after 60 s", o.skein, n, o.brokers)
		case <-ctx.Done():
			c.end(o)
			return nil, context.Cause(ctx)
		}
	}
	b := &broker{name: fmt.Sprintf("Skein (%s), %d brokers", o.skein, o.brokers), bootstrap: net.JoinHostPort("127.0.0.1", strconv.Itoa(base)), stop: func() { c.end(o) }}
	if o.kill > 0 {
		b.name += fmt.Sprintf(", one killed every %v", o.kill)
		faults, stop := context.WithCancel(ctx)
		c.stop = stop
		c.faults.Go(func() { c.killAll(faults, o) })
		b.faults = func() (int, error) {
			stop()
			c.faults.Wait()
			return c.kills, c.err
		}
	}
	return b, nil
}

// killAll kills one broker after the other, but for the first, and starts each again.
func (c *cluster) killAll(ctx context.Context, o options) {
	for i := 0; ; i++ {
		id := strconv.Itoa(2 + i%(o.brokers-1))
		for _, step := range []string{"kill", "start"} {
			select {
			case <-time.After(o.kill / 2):
			case <-ctx.Done():
				return
			}
			cmd := exec.CommandContext(ctx, o.skein, "dev", "ctl", "--data", c.data, step, id)
			cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
			if out, err := cmd.CombinedOutput(); err != nil && ctx.Err() == nil {
				c.err = fmt.Errorf("%s broker %s: %w: %s", step, id, err, out)
				return
			}
		}
		c.kills++
	}
}

// end stops all brokers, and keeps their logs.
func (c *cluster) end(o options) {
	if c.stop != nil {
		c.stop()
		c.faults.Wait()
	}
	io.WriteString(c.stdin, "quit\n")
	select {
	case <-c.ended:
	case <-time.After(90 * time.Second):
		fmt.Fprintln(os.Stderr, "conformance: the cluster did not end within 90 s of quit, killing it")
		c.cmd.Process.Kill()
		<-c.ended
	}
	for id := range o.brokers {
		name := strconv.Itoa(id+1) + ".log"
		if text, err := os.ReadFile(filepath.Join(c.data, name)); err == nil {
			os.WriteFile(filepath.Join(o.logs, "broker-"+name), text, 0o644)
		}
	}
	os.RemoveAll(c.data)
}
