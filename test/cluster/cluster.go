package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/skeinmq/skein/test/process"
)

// Cluster is what faults are done to. Brokers have ids from 1. One goroutine at a time uses it.
type Cluster interface {
	Name() string
	Seeds() []string // addresses of all brokers
	IDs() []int
	StartAll() error
	Start(id int) error // on its data; returns when it serves
	Kill(id int) error
	Stop(id int) (time.Duration, error) // in order; returns when it has ended
	Pause(id int) error
	Continue(id int) error
	Logs() string // what the brokers have printed so far and what looks wrong in it
	Close()
}

// startPatience is how long brokers may take to serve, on a machine that also runs everything else.
const startPatience = 2 * time.Minute

// stopPatience is how long a broker may take to give everything away and exit.
const stopPatience = time.Minute

// Skein is a cluster of the project's own binary.
type Skein struct {
	Bin    string
	Dir    string
	Voters int
	Args   []string         // of every broker
	Join   func(int) []int  // through whom a broker joins; nil: the voters
	More   func(int) More   // what one broker has beside Args; nil: nothing
	Place  func(int) *Place // where broker ID runs; nil: on loopback

	members []*member
}

// Place is where a broker's addresses are, and what runs its command there.
type Place struct {
	Kafka, Internal, HTTP string
	Prefix                []string
	Data                  string // default: Dir/ID
}

// More is what one broker is started with.
type More struct {
	Args, Env []string
}

type member struct {
	id    int
	place Place
	proc  *process.Process // nil: it does not run
	ended []string         // logs of its earlier processes
	moved bool             // its directory knows the cluster; it is told of nobody
}

// NewSkein lays a cluster of n brokers out; the greatest of 1, 3 and 5 that n allows vote.
func NewSkein(bin, dir string, n int, place func(int) *Place, args ...string) (*Skein, error) {
	c := &Skein{Bin: bin, Dir: dir, Voters: 1, Args: args, Place: place}
	if n >= 3 {
		c.Voters = 3
	}
	if n >= 5 {
		c.Voters = 5
	}
	for range n {
		if _, err := c.layOut(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Skein) layOut() (*member, error) {
	m := &member{id: len(c.members) + 1}
	if c.Place != nil {
		m.place = *c.Place(m.id)
	} else {
		addrs, err := process.Ports(3 * (m.id + 1))
		if err != nil {
			return nil, err
		}
		addrs = slices.DeleteFunc(addrs, c.taken)
		m.place = Place{Kafka: addrs[0], Internal: addrs[1], HTTP: addrs[2]}
	}
	if m.place.Data == "" {
		m.place.Data = filepath.Join(c.Dir, strconv.Itoa(m.id))
	}
	c.members = append(c.members, m)
	return m, nil
}

func (c *Skein) taken(addr string) bool {
	for _, m := range c.members {
		if addr == m.place.Kafka || addr == m.place.Internal || addr == m.place.HTTP {
			return true
		}
	}
	return false
}

// Name implements Cluster.
func (c *Skein) Name() string { return "skein" }

// Seeds implements Cluster.
func (c *Skein) Seeds() []string {
	var out []string
	for _, m := range c.members {
		out = append(out, m.place.Kafka)
	}
	return out
}

// IDs implements Cluster.
func (c *Skein) IDs() []int {
	var out []int
	for _, m := range c.members {
		out = append(out, m.id)
	}
	return out
}

func (c *Skein) member(id int) *member { return c.members[id-1] }

// HTTP is the address of a broker's operators' API.
func (c *Skein) HTTP(id int) string { return c.member(id).place.HTTP }

// Pid is the process id of a running broker.
func (c *Skein) Pid(id int) int { return c.member(id).proc.Pid() }

// spawn starts a broker and does not wait until it serves.
func (c *Skein) spawn(m *member) error {
	var peers, join []string
	for _, v := range c.members[:min(c.Voters, len(c.members))] {
		peers = append(peers, fmt.Sprintf("%d@%s", v.id, v.place.Internal))
		join = append(join, v.place.Internal)
	}
	if c.Join != nil && m.id > c.Voters {
		join = nil
		for _, id := range c.Join(m.id) {
			join = append(join, c.member(id).place.Internal)
		}
	}
	args := []string{"--node-id", strconv.Itoa(m.id), "--internal", m.place.Internal}
	switch {
	case m.moved:
	case m.id <= c.Voters:
		args = append(args, "--peers", strings.Join(peers, ","))
	default:
		args = append(args, "--join", strings.Join(join, ","))
	}
	var more More
	if c.More != nil {
		more = c.More(m.id)
	}
	b := process.Broker{Bin: c.Bin, Data: []string{m.place.Data}, Listen: m.place.Kafka, HTTP: m.place.HTTP,
		Args: append(append(args, c.Args...), more.Args...), Env: more.Env, Prefix: m.place.Prefix}
	p, err := b.Spawn()
	if err != nil {
		return fmt.Errorf("broker %d: %w", m.id, err)
	}
	m.proc = p
	return nil
}

// StartAll implements Cluster: those that do not run start at the same time.
func (c *Skein) StartAll() error {
	var fresh []*member
	for _, m := range c.members {
		if m.proc != nil {
			continue
		}
		if err := c.spawn(m); err != nil {
			return err
		}
		fresh = append(fresh, m)
	}
	errs := make([]error, len(fresh))
	var wg sync.WaitGroup
	for i, m := range fresh {
		wg.Go(func() {
			if err := m.proc.Await(startPatience); err != nil {
				errs[i] = fmt.Errorf("broker %d: %w", m.id, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Start implements Cluster.
func (c *Skein) Start(id int) error {
	m := c.member(id)
	if err := c.spawn(m); err != nil {
		return err
	}
	if err := m.proc.Await(startPatience); err != nil {
		return fmt.Errorf("broker %d: %w", id, err)
	}
	return nil
}

// Add starts one broker more and returns its id.
func (c *Skein) Add() (int, error) {
	m, err := c.layOut()
	if err != nil {
		return 0, err
	}
	return m.id, c.Start(m.id)
}

// Drain has every group moved away from a broker, by way of another one.
func (c *Skein) Drain(ctx context.Context, id, by int) error {
	out, err := exec.CommandContext(ctx, c.Bin, "broker", "drain", strconv.Itoa(id), "--http", c.HTTP(by)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("drain broker %d: %w: %s", id, err, out)
	}
	return nil
}

// over notes the end of a member's process.
func (m *member) over() {
	m.ended = append(m.ended, m.proc.Log())
	m.proc = nil
}

// Kill implements Cluster.
func (c *Skein) Kill(id int) error {
	m := c.member(id)
	defer m.over()
	if err := m.proc.Kill(); err != nil {
		return fmt.Errorf("broker %d: %w", id, err)
	}
	return nil
}

// Stop implements Cluster.
func (c *Skein) Stop(id int) (time.Duration, error) {
	m := c.member(id)
	defer m.over()
	took, err := m.proc.Stop(stopPatience)
	if err != nil {
		err = fmt.Errorf("broker %d: %w", id, err)
	}
	return took, err
}

// Pause implements Cluster.
func (c *Skein) Pause(id int) error { return c.member(id).proc.Pause() }

// Continue implements Cluster.
func (c *Skein) Continue(id int) error { return c.member(id).proc.Continue() }

// Running reports whether the process of a broker is there.
func (c *Skein) Running(id int) bool {
	m := c.member(id)
	if m.proc == nil {
		return false
	}
	select {
	case <-m.proc.Done():
		return false
	default:
		return true
	}
}

// Logs implements Cluster.
func (c *Skein) Logs() string {
	var b strings.Builder
	for _, m := range c.members {
		for i, text := range m.ended {
			fmt.Fprintf(&b, "--- broker %d, process %d\n%s", m.id, i+1, text)
		}
		if m.proc != nil {
			fmt.Fprintf(&b, "--- broker %d\n%s", m.id, m.proc.Log())
		}
	}
	return b.String()
}

// Close implements Cluster: it kills what is left.
func (c *Skein) Close() {
	for _, m := range c.members {
		if m.proc != nil {
			_ = m.proc.Kill()
			m.over()
		}
	}
}

// Kafka is Apache Kafka with three brokers and replication factor 3, run by the project's script.
type Kafka struct {
	Script string
	Port   int
	Dir    string
}

// Name implements Cluster.
func (k *Kafka) Name() string { return "kafka" }

// Seeds implements Cluster.
func (k *Kafka) Seeds() []string {
	var out []string
	for _, id := range k.IDs() {
		out = append(out, fmt.Sprintf("127.0.0.1:%d", k.Port+10*(id-1)))
	}
	return out
}

// IDs implements Cluster.
func (k *Kafka) IDs() []int { return []int{1, 2, 3} }

func (k *Kafka) run(args ...string) (string, error) {
	cmd := exec.Command(k.Script, args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "HEAP=-Xms512M -Xmx512M")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return string(out), err
}

func (k *Kafka) port() string { return strconv.Itoa(k.Port) }

// StartAll implements Cluster.
func (k *Kafka) StartAll() error {
	pids, err := k.pids()
	if err != nil {
		return err
	}
	if len(pids) == 0 && !k.started() {
		_, err := k.run("start", "-n", "3", "-p", k.port(), "-d", k.Dir, "min.insync.replicas=2", "group.initial.rebalance.delay.ms=0")
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i, id := range k.IDs() {
		if pids[id] == 0 {
			wg.Go(func() { errs[i] = k.Start(id) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (k *Kafka) started() bool {
	_, err := os.Stat(filepath.Join(k.Dir, "1"))
	return err == nil
}

func (k *Kafka) pids() (map[int]int, error) {
	out, err := k.run("status", "-p", k.port())
	if err != nil {
		return nil, err
	}
	pids := map[int]int{}
	for line := range strings.Lines(out) {
		var id, pid int
		if _, err := fmt.Sscan(line, &id, &pid); err != nil {
			return nil, fmt.Errorf("kafka status: %q", line)
		}
		pids[id] = pid
	}
	return pids, nil
}

func (k *Kafka) signal(id int, sig syscall.Signal) (int, error) {
	pids, err := k.pids()
	if err != nil {
		return 0, err
	}
	if pids[id] == 0 {
		return 0, fmt.Errorf("kafka broker %d does not run", id)
	}
	return pids[id], syscall.Kill(pids[id], sig)
}

// gone waits until a process that is not our child has ended.
func gone(pid int, patience time.Duration) error {
	for end := time.Now().Add(patience); syscall.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("process %d still runs after %v", pid, patience)
		}
	}
	return nil
}

// Start implements Cluster.
func (k *Kafka) Start(id int) error {
	_, err := k.run("again", "-p", k.port(), strconv.Itoa(id))
	return err
}

// Kill implements Cluster.
func (k *Kafka) Kill(id int) error {
	pid, err := k.signal(id, syscall.SIGKILL)
	if err != nil {
		return err
	}
	return gone(pid, stopPatience)
}

// Stop implements Cluster.
func (k *Kafka) Stop(id int) (time.Duration, error) {
	begun := time.Now()
	pid, err := k.signal(id, syscall.SIGTERM)
	if err == nil {
		err = gone(pid, stopPatience)
	}
	return time.Since(begun), err
}

// Pause implements Cluster.
func (k *Kafka) Pause(id int) error { _, err := k.signal(id, syscall.SIGSTOP); return err }

// Continue implements Cluster.
func (k *Kafka) Continue(id int) error { _, err := k.signal(id, syscall.SIGCONT); return err }

// Logs implements Cluster.
func (k *Kafka) Logs() string { return "" }

// Close implements Cluster.
func (k *Kafka) Close() {
	if pids, err := k.pids(); err == nil {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGCONT)
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_ = gone(pid, stopPatience)
		}
	}
	_, _ = k.run("stop", "-p", k.port())
}
