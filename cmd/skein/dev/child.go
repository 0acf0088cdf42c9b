package dev

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// State is what a child is doing, as far as its supervisor knows.
type State string

// The states of a child.
const (
	Down     State = "down"
	Starting State = "starting"
	Ready    State = "ready"
	Stopping State = "stopping"
	Paused   State = "paused"
)

// child is one broker. Owned by the supervisor's loop.
type child struct {
	spec  Spec
	state State
	since time.Time
	pid   int
	run   int    // counts starts: what an earlier process reports is stale
	line  string // its ready line, without the word
	ended string // how the last process ended
	asked bool   // its end was asked for

	cmd     *exec.Cmd
	onReady []func(error) // who waits until it serves
	onEnd   []func()      // who waits until it has ended
}

// event is what the goroutines around a child tell the loop.
type event struct {
	id, run int
	ready   string // the ready line; else it has ended
	err     error
}

// start runs the child's command. Its standard error goes to a file beside its data.
func (c *child) start(cmd *exec.Cmd, logFile string, events chan<- event, gone <-chan struct{}) error {
	f, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start broker %d: %w", c.spec.ID, err)
	}
	defer f.Close() // the child has its own
	cmd.Stderr = f
	cmd.SysProcAttr = ownGroup()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start broker %d: %w", c.spec.ID, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start broker %d: %w", c.spec.ID, err)
	}
	c.run++
	c.cmd, c.pid, c.state, c.since, c.line, c.ended, c.asked = cmd, cmd.Process.Pid, Starting, time.Now(), "", "", false
	go watch(cmd, out, event{id: c.spec.ID, run: c.run}, events, gone)
	return nil
}

// watch reports the ready line and the end of a process. It ends when the process has ended.
func watch(cmd *exec.Cmd, out io.Reader, e event, events chan<- event, gone <-chan struct{}) {
	tell := func(e event) {
		select {
		case events <- e:
		case <-gone:
		}
	}
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if rest, ok := strings.CutPrefix(line, "ready "); ok {
			tell(event{id: e.id, run: e.run, ready: strings.TrimSpace(rest)})
		}
		if err != nil {
			break
		}
	}
	e.err = cmd.Wait()
	tell(e)
}

// signal sends a signal to the running process.
func (c *child) signal(sig syscall.Signal) error {
	if c.state == Down {
		return fmt.Errorf("broker %d does not run", c.spec.ID)
	}
	if err := c.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("broker %d: %w", c.spec.ID, err)
	}
	return nil
}

// tellReady answers everybody who waits until it serves.
func (c *child) tellReady(err error) {
	for _, fn := range c.onReady {
		fn(err)
	}
	c.onReady = nil
}

// endedBy says how a process ended, for people.
func endedBy(err error) string {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "exit 0"
	case errors.As(err, &exit):
		return exit.ProcessState.String()
	}
	return err.Error()
}
