package commitlog

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/skeinmq/skein/internal/ident"
)

// run is Run: it owns every goroutine of the log.
func (l *Log) run(ctx context.Context) error {
	stop := make(chan struct{})
	var helpers, writers sync.WaitGroup
	helpers.Go(func() { l.keeper.run(stop) })
	helpers.Go(func() { l.watchWrites(stop) })
	for range l.cfg.WritesInFlight {
		writers.Go(l.writeBlocks)
	}
	var completer sync.WaitGroup
	completer.Go(l.complete)

	l.seq.run(ctx)
	close(l.writes)
	close(l.order)
	completer.Wait()
	close(stop)
	helpers.Wait()
	err := l.poison()
	if err == nil {
		writers.Wait() // of a dead log one may be stuck for ever
	}
	l.inbox.close(ErrClosed)
	return err
}

func (l *Log) close() error {
	var errs []error
	l.late.Wait()
	errs = append(errs, l.keeper.close())
	for _, f := range l.files.all() {
		errs = append(errs, f.closeHandles())
	}
	l.mem.clear()
	l.readMem.clear()
	return errors.Join(errs...)
}

func (l *Log) level() Level { return Level(l.room.Load()) }

func (l *Log) damaged() []CorruptError { return l.recovered.Damage }

func (l *Log) stats() Stats {
	s := Stats{
		ID: l.id, Epoch: ident.LogEpoch(l.epoch.Load()), End: ident.Position(l.durable.Load()),
		Committed: l.end(), Level: l.level(), Unavailable: l.damaged(),
	}
	for i, f := range l.files.all() {
		if i == 0 {
			s.First = f.first
		}
		s.Files++
		s.DiskBytes += f.size
	}
	if sp, err := l.fs.Space(l.logDir); err == nil {
		s.FreeBytes = sp.Available
	}
	for _, r := range l.table.all() {
		r.mu.RLock()
		s.Queues += len(r.queues)
		r.mu.RUnlock()
	}
	return s
}

func (l *Log) producersOf(ctx context.Context, q *Queue) ([]ident.ProducerState, error) {
	var out []ident.ProducerState
	err := l.do(ctx, func(_ *sequencer, done func(error)) bool {
		out = q.prods.export()
		done(nil)
		return true
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (q *Queue) setFloor(to ident.Offset) {}

func (q *Queue) findTime(ctx context.Context, from ident.Offset, ts int64) (Stamp, bool, error) {
	from = max(from, q.start, q.LogStart())
	for hw := q.HighWatermark(); from < hw; {
		var hit *place
		before := from
		err := q.places(ctx, from, func(_ *logFile, p *place) bool {
			if p.base >= hw {
				from = hw
				return false
			}
			if p.maxTime >= ts {
				c := *p
				hit = &c
				return false
			}
			from = p.end()
			return true
		})
		if err != nil {
			return Stamp{}, false, err
		}
		if hit != nil {
			return hit.stamp(), true, nil
		}
		if from == before {
			break
		}
	}
	return Stamp{}, false, nil
}

func (p *place) stamp() Stamp {
	return Stamp{Offset: p.base, Last: p.end() - 1, Timestamp: p.maxTime}
}

func (q *Queue) maxTime(ctx context.Context, from ident.Offset) (Stamp, bool, error) {
	from = max(from, q.start, q.LogStart())
	var best Stamp
	found := false
	for hw := q.HighWatermark(); from < hw; {
		before := from
		err := q.places(ctx, from, func(_ *logFile, p *place) bool {
			if p.base >= hw {
				from = hw
				return false
			}
			if !found || p.maxTime > best.Timestamp {
				best, found = p.stamp(), true
			}
			from = p.end()
			return true
		})
		if err != nil {
			return Stamp{}, false, err
		}
		if from == before {
			break
		}
	}
	return best, found, nil
}

func (q *Queue) segments() iter.Seq2[Segment, error] {
	return func(yield func(Segment, error) bool) {
		from, hw := max(q.start, q.LogStart()), q.HighWatermark()
		for from < hw {
			seg := Segment{First: from, MaxTimestamp: -1, Unsealed: true}
			before := from
			err := q.places(context.Background(), from, func(_ *logFile, p *place) bool {
				if p.base >= hw {
					return false
				}
				seg.Bytes += int64(p.size)
				seg.MaxTimestamp = max(seg.MaxTimestamp, p.maxTime)
				from = p.end()
				return true
			})
			if err != nil {
				yield(Segment{}, err)
				return
			}
			if from == before {
				return
			}
			seg.End = from
			if !yield(seg, nil) {
				return
			}
		}
	}
}

func (q *Queue) size() int64 {
	var n int64
	for seg, err := range q.segments() {
		if err != nil {
			break
		}
		n += seg.Bytes
	}
	return n
}
