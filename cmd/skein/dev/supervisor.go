package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Config configures a Supervisor.
type Config struct {
	Dir      string // data of broker N in Dir/N, its log in Dir/N.log
	BasePort int
	Brokers  int
	// Command makes the command of a broker.
	Command func(s Spec, voters []Spec, alone bool) *exec.Cmd
	// Order has one broker drain, undrain or remove another one, by that verb of `skein broker`.
	Order func(ctx context.Context, verb string, target Spec, ask Spec) error
	Out   io.Writer
	// Patience is how long a broker may take to stop before it is killed; default 30 s.
	Patience time.Duration
}

// maxBrokers bounds a cluster on one machine.
const maxBrokers = 50

// Validate joins every problem.
func (c Config) Validate() error {
	var problems []error
	if c.Brokers < 1 || c.Brokers > maxBrokers {
		problems = append(problems, fmt.Errorf("brokers: %d is not between 1 and %d", c.Brokers, maxBrokers))
	} else if _, err := SpecOf(c.Dir, c.BasePort, c.Brokers); err != nil {
		problems = append(problems, fmt.Errorf("base-port: %w", err))
	}
	if c.Dir == "" {
		problems = append(problems, errors.New("data: no directory"))
	}
	return errors.Join(problems...)
}

// oneAtATime keeps the lines of the loop and of commands whole.
type oneAtATime struct {
	mu sync.Mutex
	w  io.Writer
}

func (o *oneAtATime) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w.Write(b)
}

// Supervisor runs the brokers.
type Supervisor struct {
	cfg    Config
	events chan event
	asks   chan ask
	calls  chan func()   // run by the loop
	gone   chan struct{} // closed when Run has ended

	// Owned by Run's goroutine.
	children []*child
	voters   []Spec
	leaving  bool
}

// ask is a command on its way to the loop.
type ask struct {
	line  string
	reply func(string, error) // called once
}

// New returns a supervisor; Run starts the brokers.
func New(cfg Config) (*Supervisor, error) {
	if cfg.Patience == 0 {
		cfg.Patience = 30 * time.Second
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Out = &oneAtATime{w: cfg.Out}
	return &Supervisor{cfg: cfg, events: make(chan event), asks: make(chan ask), calls: make(chan func()), gone: make(chan struct{})}, nil
}

// Run starts the brokers and keeps them until ctx ends or somebody says quit; then it stops them in order. A broker that
// ends by itself stays down until a command starts it: that is what one wants to look at.
func (s *Supervisor) Run(ctx context.Context) error {
	// The kernel ties a child to the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(s.gone)
	if err := os.MkdirAll(s.cfg.Dir, 0o755); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	if err := s.plan(); err != nil {
		return err
	}
	for _, c := range s.children {
		if err := s.start(c); err != nil {
			s.leave()
			return errors.Join(err, s.drainEvents())
		}
	}
	done := ctx.Done()
	var late <-chan time.Time
	for {
		if s.leaving && late == nil {
			s.leave()
			done, late = nil, time.After(s.cfg.Patience)
		}
		if s.leaving && s.running() == 0 {
			return nil
		}
		select {
		case e := <-s.events:
			s.take(e)
		case a := <-s.asks:
			s.command(ctx, a)
		case fn := <-s.calls:
			fn()
		case <-done:
			s.leaving = true
		case <-late:
			return errors.Join(fmt.Errorf("%d brokers did not stop in %v: killed", s.running(), s.cfg.Patience), s.drainEvents())
		}
	}
}

// plan lays out the brokers, those too that an earlier run added.
func (s *Supervisor) plan() error {
	n := s.cfg.Brokers
	for {
		spec, err := SpecOf(s.cfg.Dir, s.cfg.BasePort, n+1)
		if err != nil || n == maxBrokers {
			break
		}
		if _, err := os.Stat(spec.Dir); err != nil {
			break
		}
		n++
	}
	for id := 1; id <= n; id++ {
		spec, err := SpecOf(s.cfg.Dir, s.cfg.BasePort, id)
		if err != nil {
			return err
		}
		if id <= Voters(s.cfg.Brokers) {
			s.voters = append(s.voters, spec)
		}
		s.children = append(s.children, &child{spec: spec, state: Down})
	}
	return nil
}

func (s *Supervisor) start(c *child) error {
	if err := os.MkdirAll(c.spec.Dir, 0o755); err != nil {
		return fmt.Errorf("start broker %d: %w", c.spec.ID, err)
	}
	cmd := s.cfg.Command(c.spec, s.others(c), s.cfg.Brokers == 1 && len(s.children) == 1)
	return c.start(cmd, filepath.Join(s.cfg.Dir, strconv.Itoa(c.spec.ID)+".log"), s.events, s.gone)
}

// others are the voters as a broker that starts is told them: all of them, but without itself if its directory is fresh while
// another broker serves. Then there is a cluster, which it can only join.
func (s *Supervisor) others(c *child) []Spec {
	serves := slices.ContainsFunc(s.children, func(other *child) bool { return other != c && other.state == Ready })
	if _, err := os.Stat(filepath.Join(c.spec.Dir, "meta", "node.json")); !serves || !errors.Is(err, fs.ErrNotExist) {
		return s.voters
	}
	return slices.DeleteFunc(slices.Clone(s.voters), func(v Spec) bool { return v.ID == c.spec.ID })
}

func (s *Supervisor) running() (n int) {
	for _, c := range s.children {
		if c.state != Down {
			n++
		}
	}
	return n
}

// leave asks every broker to stop, the paused ones too.
func (s *Supervisor) leave() {
	s.leaving = true
	for _, c := range s.children {
		if c.state != Down {
			c.asked = true
			_ = c.signal(syscall.SIGTERM)
			_ = c.signal(syscall.SIGCONT)
		}
	}
}

// drainEvents kills what is left and waits for it.
func (s *Supervisor) drainEvents() error {
	for _, c := range s.children {
		if c.state != Down {
			_ = c.signal(syscall.SIGKILL)
		}
	}
	for s.running() > 0 {
		s.take(<-s.events)
	}
	return nil
}

// take notes what happened to a child.
func (s *Supervisor) take(e event) {
	c := s.child(e.id)
	if c == nil || c.run != e.run {
		return
	}
	if e.ready != "" {
		c.state, c.since, c.line = Ready, time.Now(), e.ready
		s.printf("ready id=%d pid=%d %s\n", c.spec.ID, c.pid, e.ready)
		c.tellReady(nil)
		return
	}
	how := endedBy(e.err)
	s.printf("ended id=%d pid=%d %s\n", c.spec.ID, c.pid, how)
	if !c.asked {
		s.printf("see %s\n", filepath.Join(s.cfg.Dir, strconv.Itoa(c.spec.ID)+".log"))
	}
	c.state, c.since, c.pid, c.ended = Down, time.Now(), 0, how
	c.tellReady(fmt.Errorf("broker %d ended before it was ready: %s", c.spec.ID, how))
	waiting := c.onEnd
	c.onEnd = nil
	for _, fn := range waiting {
		fn()
	}
}

func (s *Supervisor) child(id int) *child {
	for _, c := range s.children {
		if c.spec.ID == id {
			return c
		}
	}
	return nil
}

func (s *Supervisor) printf(format string, args ...any) { fmt.Fprintf(s.cfg.Out, format, args...) }
