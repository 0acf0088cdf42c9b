package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Help is the text of the command help.
const Help = `kill N       end broker N at once, as a crash does (SIGKILL)
stop N       stop it in order: it gives its partitions away first (SIGTERM)
pause N      stop its process (SIGSTOP); it looks dead, but is not
continue N   let it go on (SIGCONT)
start N      start it again on its data
restart N    stop, then start
roll         restart every running broker, one after the other
add          start one more broker, which joins
drain N      move everything away from it; it goes on running
undrain N    let it take partitions again
remove N     take one that is down out of the cluster; nothing may be left on its disk
status       the brokers, one line each ("status json": as JSON)
quit         stop them all, and end
N is a broker's id, or "all".
`

// verb is a command that takes a broker, or all of those that are in a state in which it makes sense.
type verb struct {
	name string
	on   []State
	run  func(s *Supervisor, ctx context.Context, c *child, reply func(string, error))
}

var alive = []State{Starting, Ready, Stopping, Paused}

var verbs = []verb{
	{"kill", alive, func(s *Supervisor, _ context.Context, c *child, reply func(string, error)) {
		s.end(c, syscall.SIGKILL, reply)
	}},
	{"stop", []State{Starting, Ready}, func(s *Supervisor, _ context.Context, c *child, reply func(string, error)) {
		s.end(c, syscall.SIGTERM, reply)
	}},
	{"pause", []State{Starting, Ready}, func(s *Supervisor, _ context.Context, c *child, reply func(string, error)) {
		if err := c.signal(syscall.SIGSTOP); err != nil {
			reply("", err)
			return
		}
		c.state, c.since = Paused, time.Now()
		reply(fmt.Sprintf("broker %d is paused", c.spec.ID), nil)
	}},
	{"continue", []State{Paused}, func(s *Supervisor, _ context.Context, c *child, reply func(string, error)) {
		if c.state != Paused {
			reply("", fmt.Errorf("broker %d is not paused", c.spec.ID))
			return
		}
		if err := c.signal(syscall.SIGCONT); err != nil {
			reply("", err)
			return
		}
		c.state, c.since = Ready, time.Now()
		reply(fmt.Sprintf("broker %d goes on", c.spec.ID), nil)
	}},
	{"start", []State{Down}, func(s *Supervisor, _ context.Context, c *child, reply func(string, error)) { s.begin(c, reply) }},
	{"restart", []State{Ready, Down}, func(s *Supervisor, _ context.Context, c *child, reply func(string, error)) { s.again(c, reply) }},
	{"drain", []State{Ready}, func(s *Supervisor, ctx context.Context, c *child, reply func(string, error)) {
		s.order(ctx, "drain", "drained", c, reply)
	}},
	{"undrain", []State{Ready}, func(s *Supervisor, ctx context.Context, c *child, reply func(string, error)) {
		s.order(ctx, "undrain", "undrained", c, reply)
	}},
	{"remove", []State{Down}, func(s *Supervisor, ctx context.Context, c *child, reply func(string, error)) {
		s.order(ctx, "remove", "removed", c, reply)
	}},
}

// Do runs one command and waits until it is done: until a broker that is stopped has ended, or one that is started
// serves. It may be called from any goroutine.
func (s *Supervisor) Do(ctx context.Context, line string) (string, error) {
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	a := ask{line: line, reply: func(text string, err error) { answers <- answer{text, err} }}
	select {
	case s.asks <- a:
	case <-s.gone:
		return "", errors.New("the supervisor has ended")
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	select {
	case a := <-answers:
		return a.text, a.err
	case <-s.gone:
		return "", errors.New("the supervisor has ended")
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// command runs one line; its reply may come later.
func (s *Supervisor) command(ctx context.Context, a ask) {
	f := strings.Fields(a.line)
	if len(f) == 0 {
		a.reply("", nil)
		return
	}
	name, args := f[0], f[1:]
	i := slices.IndexFunc(verbs, func(v verb) bool { return v.name == name })
	switch {
	case name == "help" || name == "?":
		a.reply(strings.TrimSuffix(Help, "\n"), nil)
	case name == "status" && len(args) == 0:
		a.reply(s.status(), nil)
	case name == "status" && slices.Equal(args, []string{"json"}):
		text, err := json.MarshalIndent(s.statuses(), "", "  ")
		a.reply(string(text), err)
	case name == "quit" && len(args) == 0:
		s.leaving = true
		a.reply("stopping all brokers", nil)
	case name == "add" && len(args) == 0:
		s.add(a.reply)
	case name == "roll" && len(args) == 0:
		s.roll(a.reply)
	case i < 0 || len(args) != 1:
		a.reply("", fmt.Errorf("%q is no command; help lists them", a.line))
	case s.leaving:
		a.reply("", errors.New("the brokers are being stopped"))
	default:
		s.each(ctx, verbs[i], args[0], a.reply)
	}
}

// each runs a verb on one broker or on all of them at once, and replies when each has.
func (s *Supervisor) each(ctx context.Context, v verb, which string, reply func(string, error)) {
	var targets []*child
	for _, c := range s.children {
		if slices.Contains(v.on, c.state) {
			targets = append(targets, c)
		}
	}
	if which == "all" && len(targets) == 0 {
		reply("", fmt.Errorf("%s: there is no broker for it", v.name))
		return
	}
	if which != "all" {
		id, err := strconv.Atoi(which)
		c := s.child(id)
		if err != nil || c == nil {
			reply("", fmt.Errorf("there is no broker %q", which))
			return
		}
		targets = []*child{c}
	}
	left := len(targets)
	var texts []string
	var problems []error
	for _, c := range targets {
		v.run(s, ctx, c, func(text string, err error) { // on the loop
			if text != "" {
				texts = append(texts, text)
			}
			problems = append(problems, err)
			if left--; left == 0 {
				reply(strings.Join(texts, "\n"), errors.Join(problems...))
			}
		})
	}
}

// end sends a signal that ends the broker and replies when it has ended.
func (s *Supervisor) end(c *child, sig syscall.Signal, reply func(string, error)) {
	if c.state == Down {
		reply("", fmt.Errorf("broker %d does not run", c.spec.ID))
		return
	}
	if sig == syscall.SIGTERM && c.state == Paused {
		reply("", fmt.Errorf("broker %d is paused: continue it first, or kill it", c.spec.ID))
		return
	}
	begun := time.Now()
	c.asked = true
	c.onEnd = append(c.onEnd, func() {
		reply(fmt.Sprintf("broker %d ended after %v: %s", c.spec.ID, time.Since(begun).Round(time.Millisecond), c.ended), nil)
	})
	if sig == syscall.SIGTERM {
		c.state, c.since = Stopping, time.Now()
	}
	if err := c.signal(sig); err != nil {
		c.onEnd = c.onEnd[:len(c.onEnd)-1]
		reply("", err)
	}
}

// begin starts a broker that is down and replies when it serves.
func (s *Supervisor) begin(c *child, reply func(string, error)) {
	if s.leaving {
		reply("", errors.New("the brokers are being stopped"))
		return
	}
	if c.state != Down {
		reply("", fmt.Errorf("broker %d is %s", c.spec.ID, c.state))
		return
	}
	begun := time.Now()
	if err := s.start(c); err != nil {
		reply("", err)
		return
	}
	c.onReady = append(c.onReady, func(err error) {
		if err != nil {
			reply("", err)
			return
		}
		reply(fmt.Sprintf("broker %d serves after %v, pid %d", c.spec.ID, time.Since(begun).Round(time.Millisecond), c.pid), nil)
	})
}

// again stops a broker, if it runs, and starts it.
func (s *Supervisor) again(c *child, reply func(string, error)) {
	if c.state == Down {
		s.begin(c, reply)
		return
	}
	s.end(c, syscall.SIGTERM, func(text string, err error) {
		if err != nil {
			reply(text, err)
			return
		}
		s.begin(c, func(more string, err error) { reply(strings.TrimSuffix(text+"\n"+more, "\n"), err) })
	})
}

// roll restarts every running broker, one after the other.
func (s *Supervisor) roll(reply func(string, error)) {
	var queue []*child
	for _, c := range s.children {
		if c.state == Ready {
			queue = append(queue, c)
		}
	}
	var texts []string
	var next func()
	next = func() {
		if len(queue) == 0 {
			reply(strings.Join(texts, "\n"), nil)
			return
		}
		c := queue[0]
		queue = queue[1:]
		s.again(c, func(text string, err error) {
			texts = append(texts, text)
			if err != nil {
				reply(strings.Join(texts, "\n"), err)
				return
			}
			next()
		})
	}
	next()
}

// onLoop has the loop run fn; it does nothing once the loop has ended.
func (s *Supervisor) onLoop(fn func()) {
	select {
	case s.calls <- fn:
	case <-s.gone:
	}
}

// add starts one more broker.
func (s *Supervisor) add(reply func(string, error)) {
	spec, err := SpecOf(s.cfg.Dir, s.cfg.BasePort, len(s.children)+1)
	if err == nil && len(s.children) >= maxBrokers {
		err = fmt.Errorf("there are %d brokers already", len(s.children))
	}
	if err == nil && s.cfg.Brokers == 1 {
		err = errors.New("a cluster of one has no internal listener to join: start with --brokers 3")
	}
	if err != nil {
		reply("", err)
		return
	}
	c := &child{spec: spec, state: Down}
	s.children = append(s.children, c)
	s.begin(c, reply)
}

// order has another broker that serves change this one, or the broker itself if there is none.
func (s *Supervisor) order(ctx context.Context, verb, done string, c *child, reply func(string, error)) {
	by := c.spec
	for _, other := range s.children {
		if other != c && other.state == Ready {
			by = other.spec
		}
	}
	if s.cfg.Order == nil {
		reply("", fmt.Errorf("%s: not possible here", verb))
		return
	}
	go func() {
		err := s.cfg.Order(ctx, verb, c.spec, by)
		s.onLoop(func() {
			if err != nil {
				reply("", fmt.Errorf("%s broker %d: %w", verb, c.spec.ID, err))
				return
			}
			reply(fmt.Sprintf("broker %d is %s", c.spec.ID, done), nil)
		})
	}()
}

// Status is one broker, as the command "status json" tells of it.
type Status struct {
	ID       int    `json:"id"`
	State    State  `json:"state"`
	PID      int    `json:"pid"`
	Listen   string `json:"listen"`
	Internal string `json:"internal"`
	HTTP     string `json:"http"`
	Data     string `json:"data"`
	Ended    string `json:"ended,omitempty"` // how the last process ended
}

func (s *Supervisor) statuses() []Status {
	out := []Status{}
	for _, c := range s.children {
		out = append(out, Status{c.spec.ID, c.state, c.pid, c.spec.Listen, c.spec.Internal, c.spec.HTTP, c.spec.Dir, c.ended})
	}
	return out
}

func (s *Supervisor) status() string {
	var b strings.Builder
	for i, c := range s.children {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "id=%d state=%s pid=%d listen=%s internal=%s http=%s data=%s", c.spec.ID, c.state, c.pid, c.spec.Listen, c.spec.Internal, c.spec.HTTP, c.spec.Dir)
		if c.ended != "" {
			fmt.Fprintf(&b, " ended=%q", c.ended)
		}
	}
	return b.String()
}
