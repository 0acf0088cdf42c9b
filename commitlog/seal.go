package commitlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/skeinmq/skein/internal/ident"
)

// freeze is Freeze: one group commit for all groups together.
func (l *Log) freeze(ctx context.Context, groups []ident.Group) (map[ident.Group][]ident.PartitionState, error) {
	runs := make([]*run, 0, len(groups))
	err := l.drain(ctx, func(*sequencer) error {
		for _, g := range groups {
			r := l.table.openOf(g)
			if r == nil {
				return fmt.Errorf("freeze group %d: %w", g, ErrNotOpen)
			}
			if !r.frozen {
				r.frozen, r.hold = true, &hold{}
			}
			runs = append(runs, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make(map[ident.Group][]ident.PartitionState, len(runs))
	err = l.do(ctx, func(_ *sequencer, done func(error)) bool {
		for _, r := range runs {
			states := []ident.PartitionState{}
			for _, q := range r.sorted() {
				if q.hasState() {
					states = append(states, q.snapshot())
				}
			}
			out[r.gen.Group] = states
		}
		done(nil)
		return true
	})
	if err != nil {
		return nil, err
	}
	for _, r := range runs {
		r.notify()
	}
	return out, nil
}

// thaw is Thaw. What waited enters the log before anything that comes later.
func (l *Log) thaw(groups []ident.Group) error {
	left := groups
	var errs []error
	return l.do(context.Background(), func(s *sequencer, done func(error)) bool {
		for ; len(left) > 0; left = left[1:] {
			r := l.table.openOf(left[0])
			if r == nil {
				errs = append(errs, fmt.Errorf("thaw group %d: %w", left[0], ErrNotOpen))
				continue
			}
			r.frozen = false
			if !s.admitHeld(r) {
				return false
			}
		}
		done(errors.Join(errs...))
		return true
	})
}

// seal is Seal.
func (l *Log) seal(ctx context.Context, gens []MapGeneration) error {
	runs := make([]*run, len(gens))
	for i := range gens {
		if runs[i] = l.table.get(gens[i].Generation); runs[i] == nil {
			return fmt.Errorf("seal %s: %w", gens[i].Generation, ErrNotOpen)
		}
	}
	// Nothing more enters; what is under way becomes visible, or the log dies.
	err := l.drain(ctx, func(s *sequencer) error {
		for _, r := range runs {
			l.table.close(r, runSealed)
			s.refuseHeld(r, fmt.Errorf("append to %s: %w", r.gen, ErrNotOpen))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("seal %d generations: %w", len(gens), err)
	}
	frames := make([]*parts, len(gens))
	for i := range gens {
		if err := checkEnds(&gens[i], runs[i]); err != nil {
			return err
		}
		frames[i] = cutFrame(gens[i])
	}
	next := 0
	err = l.do(ctx, func(s *sequencer, done func(error)) bool {
		for ; next < len(frames); next++ {
			if !frames[next].write(s) {
				return false
			}
			s.tell(Update{Kind: UpdateForgotten, Generation: runs[next].gen})
			for _, q := range runs[next].sorted() {
				s.touch(q)
			}
			for _, q := range runs[next].cut(gens[next].Ends) {
				l.reportLoss(q)
			}
		}
		s.onCommit(done)
		return true
	})
	if err != nil {
		return fmt.Errorf("seal %d generations: %w", len(gens), err)
	}
	for _, r := range runs {
		r.notify()
	}
	return nil
}

// checkEnds makes sure that nothing which was visible is cut away (I3).
func checkEnds(m *MapGeneration, r *run) error {
	for _, q := range r.sorted() {
		end, ok := m.Ends[q.partition]
		if !ok {
			end = q.start
		}
		if hw := q.HighWatermark(); end < hw {
			return fmt.Errorf("seal %s: end %d of %s is below what was visible, %d", m.Generation, end, q.partition, hw)
		}
	}
	return nil
}
