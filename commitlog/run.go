package commitlog

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// run is Run: it owns every goroutine of the log.
func (l *Log) run(ctx context.Context) error {
	stop := make(chan struct{})
	var helpers, writers sync.WaitGroup
	background, end := context.WithCancel(context.Background())
	defer end()
	helpers.Go(func() { l.keeper.run(background) })
	helpers.Go(func() {
		if err := l.pool.run(background); err != nil {
			l.setPoison(err)
		}
	})
	helpers.Go(func() { l.pool.giver.run(background) })
	helpers.Go(func() { l.watchWrites(stop) })
	helpers.Go(func() { l.mem.run(background) })
	helpers.Go(func() { l.sealer.run(stop) })
	helpers.Go(func() { l.sorter.run(background) })
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
	end()
	close(l.stopped)
	helpers.Wait()
	l.awaitWriters(&writers)
	err := l.poison()
	if err == nil {
		l.sealer.last()
	}
	l.inbox.close(ErrClosed)
	return err
}

// strayWrite is how long the end of a dead log waits for writes that are still under way.
const strayWrite = time.Second

// awaitWriters waits for the writers. Of a dead log one may be stuck for ever: then its
// file and its memory are never given back.
func (l *Log) awaitWriters(writers *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { // ends with the stuck write, or with the process
		writers.Wait()
		close(done)
	}()
	if l.poison() == nil {
		<-done
		return
	}
	select {
	case <-done:
	case <-time.After(strayWrite):
		l.stray = true
	}
}

func (l *Log) close() error {
	var errs []error
	l.late.Wait()
	if l.stray {
		return nil
	}
	l.ahead.close()
	l.passed.close()
	errs = append(errs, l.keeper.close())
	for _, f := range l.files.all() {
		errs = append(errs, f.closeHandles())
	}
	for _, r := range l.sealer.todo.sorted { // the sealer ended first
		if r.file != nil {
			errs = append(errs, r.file.closeHandles())
		}
	}
	l.mem.clear()
	l.readMem.clear()
	l.packMem.clear()
	return errors.Join(errs...)
}

func (l *Log) level() Level { return l.pool.level() }

func (l *Log) pressure() float64 { return l.pool.pressure() }

func (l *Log) currentEpoch() ident.LogEpoch { return ident.LogEpoch(l.epoch.Load()) }

func (l *Log) stats() Stats {
	s := Stats{
		ID: l.id, Epoch: ident.LogEpoch(l.epoch.Load()), End: ident.Position(l.durable.Load()),
		Committed: l.end(), Level: l.level(), CacheLimit: l.mem.limit.Load(), Unavailable: l.damage.all(),
	}
	for i, f := range l.files.all() {
		if i == 0 {
			s.First = f.span().from
		}
		s.Files++
		s.DiskBytes += f.onDisk()
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
