package commitlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// model is what the outside world knows of one log: the map, what was acked, what was
// sent, what was seen. After any crash the log must agree with it.
type model struct {
	mu    sync.Mutex
	gens  []MapGeneration
	epoch ident.LogEpoch
	parts map[int32]*modelPart

	sorted int // how often files were rewritten
}

type modelPart struct {
	group    ident.Group
	sent     [][]byte // in order; the log assigns their offsets in this order
	acked    int      // the first so many are acked
	perBatch int      // records
	logStart ident.Offset
	tried    ident.Offset // log start that was asked for
	dropping bool
	dropped  bool
}

func newModel() *model { return &model{parts: map[int32]*modelPart{}} }

func (m *model) part(p int32) *modelPart {
	if m.parts[p] == nil {
		m.parts[p] = &modelPart{group: ident.Group(p % 2), perBatch: int(p) + 1}
	}
	return m.parts[p]
}

func modelPartition(p int32) ident.Partition {
	return ident.Partition{Topic: ident.Topic{9}, Index: p}
}

// scenario drives one log until something fails, then returns why.
type scenario struct {
	m   *model
	l   *Log
	ctx context.Context

	inFlight sync.WaitGroup
	err      error // guarded by m.mu
	serial   int
}

func (s *scenario) failed() error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	return s.err
}

// send appends one batch without waiting.
func (s *scenario) send(p int32, size int) error {
	if err := s.failed(); err != nil {
		return err
	}
	part := s.m.part(p)
	q, err := s.l.Queue(part.group, modelPartition(p))
	if err != nil {
		return err
	}
	s.serial++
	n := len(part.sent)
	data := producerBatch(int32(part.perBatch), size, int64(p), 0, int32(n*part.perBatch))
	copy(data[batchHeaderSize:], fmt.Sprintf("%d/%d/%d", p, n, s.serial))
	seal(data)
	s.m.mu.Lock()
	part.sent = append(part.sent, data)
	s.m.mu.Unlock()
	s.inFlight.Add(1)
	s.l.Append(&Append{Batches: []Batch{batchOf(q, data)}, Done: func(a *Append) {
		defer s.inFlight.Done()
		s.m.mu.Lock()
		defer s.m.mu.Unlock()
		r := a.Batches[0].Result
		switch {
		case r.Err != nil:
			s.err = r.Err
		case r.Base != ident.Offset(n*part.perBatch) || part.acked != n:
			s.err = fmt.Errorf("%w: partition %d batch %d acked at %d after %d", errBroken, p, n, r.Base, part.acked)
		default:
			part.acked++
		}
	}})
	return nil
}

var errBroken = errors.New("promise broken")

// move seals a group here and opens its next generation here: what a planned move does,
// on one log.
func (s *scenario) move(g ident.Group) error {
	s.inFlight.Wait()
	byGroup, err := s.l.Freeze(s.ctx, g)
	states := byGroup[g]
	if err != nil {
		return err
	}
	old := -1
	for i := range s.m.gens {
		if s.m.gens[i].Open && s.m.gens[i].Generation.Group == g {
			old = i
		}
	}
	epoch := s.m.gens[old].Generation.Epoch + 1
	fr, err := s.l.Prepare(s.ctx, []Opening{{Group: g, Epoch: epoch, State: states}})
	if err != nil {
		return err
	}
	ends := map[ident.Partition]ident.Offset{}
	for _, st := range states {
		ends[st.Partition] = st.End
	}
	// The map publishes here.
	s.m.gens[old].Open, s.m.gens[old].Ends = false, ends
	gen := ident.Generation{Group: g, Epoch: epoch, Frame: fr[0]}
	s.m.gens = append(s.m.gens, MapGeneration{Generation: gen, Open: true})
	if err := s.l.Seal(s.ctx, s.m.gens[old]); err != nil {
		return err
	}
	return s.l.Activate([]ident.Generation{gen})
}

func (s *scenario) setLogStart(p int32, batches int) error {
	part := s.m.part(p)
	to := ident.Offset(batches * part.perBatch)
	q, err := s.l.Queue(part.group, modelPartition(p))
	if err != nil {
		return err
	}
	part.tried = to
	if err := q.SetLogStart(s.ctx, to); err != nil {
		return err
	}
	part.logStart = to
	for _, g := range s.m.gens {
		if sealed, ok := s.l.Sealed(g.Generation, modelPartition(p)); ok {
			sealed.Floor(to)
		}
	}
	return nil
}

// sort rewrites what is worth it, once everything but the newest file is sealed.
func (s *scenario) sort() error {
	s.inFlight.Wait()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // of a busy machine
		if err := s.l.poison(); err != nil {
			return err
		}
		if s.settled() {
			break
		}
		if time.Now().After(end) {
			return errNotSealed
		}
		s.l.sealer.wake.poke()
	}
	for {
		if more, err := s.l.sorter.once(s.ctx); err != nil || !more {
			return errors.Join(err, s.failed())
		}
		s.m.sorted++
	}
}

// settled reports whether the files that take no more blocks are sealed, and the queues rid of what is not live.
func (s *scenario) settled() bool {
	all := s.l.files.all()
	for i, f := range all {
		if i < len(all)-1 && !f.cut.Load() {
			return false
		}
	}
	for _, r := range s.l.table.all() {
		for _, q := range r.sorted() {
			if segs := q.sealedSegments(); len(segs) > 0 && segs[0].end <= q.effectiveFloor() {
				return false
			}
		}
	}
	return true
}

// errNotSealed: an index could not be written, which is no promise that was broken.
var errNotSealed = errors.New("files are not sealed")

func (s *scenario) drop(p int32) error {
	part := s.m.part(p)
	part.dropping = true
	if err := s.l.Drop(s.ctx, []ident.Partition{modelPartition(p)}); err != nil {
		return err
	}
	part.dropped = true
	return nil
}

// session opens the log, runs body and closes it. Errors of the disk are expected.
func session(fs vfs.FS, m *model, body func(s *scenario) error) error {
	l, err := Open(context.Background(), modelConfig(fs))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	s := &scenario{m: m, l: l, ctx: ctx}
	err = s.begin()
	if err == nil {
		err = body(s)
	}
	if err == nil {
		s.inFlight.Wait()
		err = s.failed()
	}
	cancel()
	err = errors.Join(err, <-ended)
	s.inFlight.Wait()
	return errors.Join(err, l.Close())
}

func modelConfig(fs vfs.FS) Config {
	return Config{
		FS: fs, Dir: "data", ClusterID: "c", FileSize: 1 << 20, MaxBlock: 128 << 10, CacheBytes: 1 << 20, ReadyFiles: 1,
		SortEach: time.Hour, SortRate: 1 << 40, // scenario.sort does it
	}
}

func (s *scenario) begin() error {
	s.m.epoch = max(s.m.epoch, s.l.Recovered().Epoch) + 1
	if err := s.l.Begin(s.ctx, s.m.epoch, s.m.gens); err != nil {
		return err
	}
	if len(s.m.gens) > 0 {
		return nil
	}
	fr, err := s.l.Prepare(s.ctx, []Opening{{Group: 0, Epoch: 1}, {Group: 1, Epoch: 1}})
	if err != nil {
		return err
	}
	for g, f := range fr {
		gen := ident.Generation{Group: ident.Group(g), Epoch: 1, Frame: f}
		s.m.gens = append(s.m.gens, MapGeneration{Generation: gen, Open: true})
		if err := s.l.Activate([]ident.Generation{gen}); err != nil {
			return err
		}
	}
	return nil
}

// check compares an opened log with the model. Then the model takes over what the log
// kept beyond the acked.
func (m *model) check(l *Log) error {
	if d := l.Recovered().Damage; len(d) > 0 {
		return fmt.Errorf("%w: damage reported: %v", errBroken, d)
	}
	for p, part := range m.parts {
		got, start, present, err := m.read(l, p, part)
		if err != nil {
			return fmt.Errorf("partition %d: %w", p, err)
		}
		if part.dropped && present {
			return fmt.Errorf("%w: dropped partition %d is back", errBroken, p)
		}
		if part.dropping && !present {
			continue
		}
		if start < part.logStart || start > max(part.tried, part.logStart) {
			return fmt.Errorf("%w: partition %d: log start %d, acked %d, tried %d", errBroken, p, start, part.logStart, part.tried)
		}
		first := int(start) / part.perBatch
		if have := first + len(got); have < part.acked || have > len(part.sent) {
			return fmt.Errorf("%w: partition %d holds batches %d to %d, acked %d, sent %d", errBroken, p, first, have, part.acked, len(part.sent))
		}
		for i, b := range got {
			if !bytes.Equal(b[batchHeaderSize:], part.sent[first+i][batchHeaderSize:]) {
				return fmt.Errorf("%w: partition %d batch %d: other bytes", errBroken, p, first+i)
			}
		}
		part.logStart = start
		part.acked = first + len(got)
		part.sent = part.sent[:part.acked]
	}
	return nil
}

// read returns every batch of a partition from its log start on, over all generations.
func (m *model) read(l *Log, p int32, part *modelPart) (out [][]byte, start ident.Offset, present bool, err error) {
	var queues []*Queue
	for _, g := range m.gens {
		if g.Generation.Group != part.group {
			continue
		}
		if q, ok := l.Sealed(g.Generation, modelPartition(p)); ok {
			queues = append(queues, q)
			start = max(start, q.LogStart())
			present = true
		}
	}
	var rec Records
	defer rec.Release()
	next := ident.Offset(0)
	for i, q := range queues {
		if i > 0 && q.Start() != next {
			return nil, 0, false, fmt.Errorf("%w: generation starts at %d, the one before ended at %d", errBroken, q.Start(), next)
		}
		next = q.HighWatermark()
		for at := max(q.Start(), start); at < next; at = rec.Next {
			rec.Release()
			if err := q.Read(context.Background(), ReadOptions{From: at, MaxBytes: 1 << 20, AtLeastOne: true}, &rec); err != nil {
				return nil, 0, false, fmt.Errorf("%w: %w", errBroken, err)
			}
			if rec.Next <= at {
				return nil, 0, false, fmt.Errorf("%w: nothing at %d below %d", errBroken, at, next)
			}
			for _, s := range rec.Slices {
				out = append(out, bytes.Clone(s))
			}
		}
	}
	return out, start, present, nil
}

// verify opens the disk that a crash left, checks it, writes on, and opens it once more.
func (m *model) verify(fs vfs.FS) error {
	for round := range 2 {
		err := session(fs, m, func(s *scenario) error {
			if err := m.check(s.l); err != nil {
				return err
			}
			for p := range m.parts {
				if !m.parts[p].dropping {
					for range 3 {
						if err := s.send(p, 5000); err != nil {
							return err
						}
					}
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("after the crash, round %d: %w", round, err)
		}
	}
	return nil
}
