package group

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "write the transcripts that the scripts produce")

// TestScripts runs testdata/*.txt. A script is paragraphs of command lines, a line of four
// dashes, and what they answered. Time stands still but for the command "wait".
func TestScripts(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	if len(files) == 0 {
		t.Fatal("no scripts")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := newScript()
			var out strings.Builder
			for i, par := range strings.Split(strings.TrimSpace(string(b)), "\n\n") {
				cmds, want, _ := strings.Cut(par, "----")
				if i > 0 {
					out.WriteString("\n")
				}
				out.WriteString(cmds)
				if strings.TrimSpace(cmds) == "" || strings.HasPrefix(cmds, "#") && !strings.Contains(par, "----") {
					out.WriteString("\n")
					continue
				}
				if !strings.HasSuffix(cmds, "\n") {
					out.WriteString("\n")
				}
				got := s.run(cmds)
				out.WriteString("----\n" + got)
				if !*rewrite && strings.TrimSpace(want) != strings.TrimSpace(got) {
					t.Errorf("%s\ngot:\n%s\nwant:\n%s", cmds, got, strings.TrimSpace(want)+"\n")
				}
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// script drives one machine. Writes become durable at once, unless "hold" was said.
type script struct {
	cfg    Config
	m      *Machine
	now    time.Time
	stored map[string][]byte
	held   []Write
	hold   bool
	ticket Ticket
	names  map[Ticket]string
	out    strings.Builder
}

func testConfig() Config {
	return Config{
		MinSessionTimeout: 6 * time.Second, MaxSessionTimeout: 30 * time.Minute,
		InitialRebalanceDelay: 3 * time.Second, MaxSize: 1000, MaxMetadataBytes: 1 << 20, MaxGroups: 1000,
	}
}

func newScript() *script {
	s := &script{cfg: testConfig(), now: time.UnixMilli(0), stored: map[string][]byte{}, names: map[Ticket]string{}}
	s.m = New(s.cfg)
	return s
}

func (s *script) run(cmds string) string {
	s.out.Reset()
	for _, line := range strings.Split(strings.TrimSpace(cmds), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		words := strings.Fields(line)
		args := map[string]string{}
		for _, w := range words[1:] {
			k, v, _ := strings.Cut(w, "=")
			args[k] = v
		}
		s.command(words[0], words[1:], args)
		s.drain()
	}
	return s.out.String()
}

func (s *script) command(verb string, words []string, a map[string]string) {
	dur := func(key string, def time.Duration) time.Duration {
		if a[key] == "" {
			return def
		}
		d, err := time.ParseDuration(a[key])
		if err != nil {
			panic(err)
		}
		return d
	}
	num := func(key string, def int) int {
		if a[key] != "" {
			fmt.Sscan(a[key], &def)
		}
		return def
	}
	group := a["group"]
	if group == "" {
		group = "g"
	}
	switch verb {
	case "config":
		s.cfg.InitialRebalanceDelay = dur("delay", s.cfg.InitialRebalanceDelay)
		s.cfg.MaxSize = num("max", s.cfg.MaxSize)
		s.cfg.MaxMetadataBytes = num("metadata", s.cfg.MaxMetadataBytes)
		s.m.cfg = s.cfg
	case "join":
		rq := &JoinRequest{
			Group: group, Member: a["member"], Instance: a["instance"], ClientID: "client", Host: "/h", NewID: a["new"],
			SessionTimeout: dur("session", 10*time.Second), RebalanceTimeout: dur("rebalance", time.Minute),
			ProtocolType: "consumer", Protocols: protocols(a["protocols"]),
			RequireKnownID: num("v", 3) >= 4, CanSkipAssignment: num("v", 3) >= 9, Ticket: s.park(words[0]),
		}
		if a["type"] != "" {
			rq.ProtocolType = strings.TrimPrefix(a["type"], "none")
		}
		if a["group"] == "none" {
			rq.Group = ""
		}
		s.m.Join(s.now, rq)
	case "sync":
		rq := &SyncRequest{Group: group, Generation: int32(num("gen", 1)), Member: a["member"], Instance: a["instance"], Ticket: s.park(words[0])}
		if p, ok := a["protocol"]; ok {
			rq.Protocol = &p
		}
		if p, ok := a["type"]; ok {
			rq.ProtocolType = &p
		}
		if a["assign"] != "" {
			rq.Assignments = map[string][]byte{}
			for _, kv := range strings.Split(a["assign"], ",") {
				k, v, _ := strings.Cut(kv, ":")
				rq.Assignments[k] = []byte(v)
			}
		}
		s.m.Sync(s.now, rq)
	case "heartbeat":
		s.say("heartbeat: %v", text(s.m.Heartbeat(s.now, group, int32(num("gen", 1)), a["member"], a["instance"])))
	case "leave":
		var ls []Leaver
		for _, w := range words {
			if strings.HasPrefix(w, "group=") {
				continue
			}
			id, inst, _ := strings.Cut(w, "/")
			ls = append(ls, Leaver{Member: id, Instance: inst})
		}
		each, err := s.m.Leave(s.now, group, ls)
		if err != nil {
			s.say("leave: %v", text(err))
		}
		for i, err := range each {
			s.say("leave %s/%s: %v", ls[i].Member, ls[i].Instance, text(err))
		}
	case "commit":
		err := s.m.CheckCommit(s.now, Commit{Group: group, Generation: int32(num("gen", -1)), Member: a["member"], Instance: a["instance"], GroupNotFound: num("v", 8) >= 9})
		s.say("commit: %v", text(err))
	case "delete":
		s.say("delete: %v", text(s.m.Delete(group)))
	case "retention":
		s.say("retention: %+v subscribed to t1: %v, idle: %v", s.m.Retention(group), s.m.Subscribed(group, "t1"), s.m.Idle(group))
	case "offset-delete":
		s.say("offset-delete: %v", text(s.m.CheckOffsetDelete(group)))
	case "list":
		for _, g := range s.m.List() {
			s.say("%s %s %q", g.Name, g.State, g.ProtocolType)
		}
	case "describe":
		s.describe(group)
	case "wait":
		s.wait(dur("for", 0))
	case "hold":
		s.hold = true
	case "release":
		s.hold = false
		held := s.held
		s.held = nil
		s.persist(held)
	case "restart":
		s.m.Unload()
		s.drain()
		s.held = nil
		s.m = New(s.cfg)
		for _, name := range slices.Sorted(mapsKeys(s.stored)) {
			if err := s.m.Load(s.now, name, s.stored[name]); err != nil {
				s.say("load %s: %v", name, err)
			}
		}
	default:
		panic("unknown command " + verb)
	}
}

func mapsKeys(m map[string][]byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// wait moves time, letting each deadline happen at its own moment.
func (s *script) wait(d time.Duration) {
	end := s.now.Add(d)
	for {
		at, ok := s.m.Next()
		if !ok || at.After(end) {
			break
		}
		if at.After(s.now) {
			s.now = at
		}
		s.m.Tick(s.now)
		if len(s.m.out.Joins)+len(s.m.out.Syncs)+len(s.m.out.Writes) > 0 {
			s.say("at %v", time.Duration(s.now.UnixMilli())*time.Millisecond)
		}
		s.drain()
	}
	s.now = end
}

func (s *script) describe(group string) {
	d, ok := s.m.Describe(group)
	g := s.m.groups[group]
	if !ok {
		s.say("%s %s", d.Name, d.State)
		return
	}
	s.say("%s %s type=%q protocol=%q generation=%d leader=%q awaiting=%d pending=%d", d.Name, d.State, d.ProtocolType, d.Protocol, g.generation, g.leader, g.awaiting, len(g.pendingJoin))
	for _, mem := range d.Members {
		s.say("  %s/%s metadata=%q assignment=%q", mem.ID, mem.Instance, mem.Metadata, mem.Assignment)
	}
}

func (s *script) park(name string) Ticket {
	s.ticket++
	s.names[s.ticket] = name
	return s.ticket
}

func (s *script) drain() {
	for {
		out := s.m.Drain()
		if len(out.Joins)+len(out.Syncs)+len(out.Writes) == 0 {
			return
		}
		for _, r := range out.Joins {
			s.say("join %s: %s member=%q gen=%d protocol=%s/%s leader=%q members=%s%s", s.names[r.Ticket], text(r.Err), r.Member, r.Generation,
				r.ProtocolType, r.Protocol, r.Leader, members(r.Members), map[bool]string{true: " skip"}[r.SkipAssignment])
			delete(s.names, r.Ticket)
		}
		for _, r := range out.Syncs {
			s.say("sync %s: %s protocol=%s/%s assignment=%q", s.names[r.Ticket], text(r.Err), r.ProtocolType, r.Protocol, r.Assignment)
			delete(s.names, r.Ticket)
		}
		if s.hold {
			s.held = append(s.held, out.Writes...)
			continue
		}
		s.persist(out.Writes)
	}
}

func (s *script) persist(writes []Write) {
	for _, w := range writes {
		if w.Drop {
			s.say("store %s: dropped", w.Group)
			delete(s.stored, w.Group)
			continue
		}
		g, err := decodeGroup(w.Group, w.Value)
		if err != nil {
			panic(err)
		}
		s.say("store %s: generation %d, %d members", w.Group, g.generation, len(g.members))
		s.stored[w.Group] = w.Value
		if w.Token != 0 {
			s.m.Persisted(s.now, w.Token)
		}
	}
}

func (s *script) say(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

func text(err error) string {
	if err == nil {
		return "ok"
	}
	for _, known := range []error{ErrMemberIDRequired, ErrUnknownMember, ErrIllegalGeneration, ErrRebalanceInProgress} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return err.Error()
}

func members(ms []JoinMember) string {
	var out []string
	for _, m := range ms {
		out = append(out, m.ID)
	}
	return "[" + strings.Join(out, " ") + "]"
}

// protocols reads "range:t1+t2,sticky:t1"; the metadata is a consumer subscription.
func protocols(s string) []Protocol {
	if s == "none" {
		return nil
	}
	if s == "" {
		s = "range:t1"
	}
	var out []Protocol
	for _, p := range strings.Split(s, ",") {
		name, topics, _ := strings.Cut(p, ":")
		out = append(out, Protocol{Name: name, Metadata: subscription(strings.Split(topics, "+")...)})
	}
	return out
}

func subscription(topics ...string) []byte {
	b := binary.BigEndian.AppendUint16(nil, 1)
	b = binary.BigEndian.AppendUint32(b, uint32(len(topics)))
	for _, t := range topics {
		b = binary.BigEndian.AppendUint16(b, uint16(len(t)))
		b = append(b, t...)
	}
	return b
}
