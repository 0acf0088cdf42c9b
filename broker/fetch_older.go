package broker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/skeinmq/skein/broker/runs"
	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol/record"
	"github.com/skeinmq/skein/queuemapper"
)

// readRun reads from the run that holds the offset: the open one, or an older one in a log of this broker. Where nothing
// was ever written, below the end of a run that was sealed at its ceiling, and where a disk has lost what was, it goes on
// to what follows. When there is nothing as yet, or it is out of reach, an empty batch brings the reader there.
func (b *Broker) readRun(ctx context.Context, p *partition, open *openRun, opt commitlog.ReadOptions, dst *commitlog.Records) error {
	from := opt.From
	err := b.readPast(ctx, p, open, &opt, dst)
	if opt.From < open.queue.Start() {
		b.loads.read(open.gen.Group, dst.Bytes) // wherever it came from
	} else {
		b.loads.read(open.gen.Group, dst.Cold)
	}
	if opt.From == from || dst.Bytes > 0 || err != nil && !errors.Is(err, runs.ErrAway) {
		return err
	}
	last := min(opt.From-1, from+math.MaxInt32)
	dst.Slices = append(dst.Slices, record.AppendEmpty(nil, int64(from), int64(last), b.epochAt(p, open, last)))
	dst.Bytes, dst.Next = len(dst.Slices[0]), last+1
	return nil
}

// readPast is readRun without the empty batch. It moves opt.From past what holds nothing.
func (b *Broker) readPast(ctx context.Context, p *partition, open *openRun, opt *commitlog.ReadOptions, dst *commitlog.Records) error {
	for opt.From < open.queue.Start() {
		m := b.store.Map()
		run, ok := m.Locate(p.topic.newest(), p.index, opt.From)
		if !ok {
			return commitlog.ErrOutOfRange
		}
		next, end := m.Readable(p.id(), run, opt.From)
		if next > opt.From {
			b.lost.pass(b, p, run, opt.From, next)
			opt.From = next
			continue
		}
		run.End = end
		err := b.readOlder(ctx, p, run, opt, dst)
		if errors.Is(err, runs.ErrAway) && b.skips(p, run.Log) && opt.From < opt.To {
			b.metrics.skipped.Inc()
			opt.From, err = min(run.End, opt.To), nil
		}
		if err != nil || opt.From < run.End {
			return err
		}
	}
	if opt.From >= opt.To {
		return nil
	}
	return open.queue.Read(ctx, *opt, dst)
}

// readOlder reads from one sealed run, after it has moved opt.From past what holds nothing: to the run's end if nothing is
// left there.
func (b *Broker) readOlder(ctx context.Context, p *partition, run queuemapper.Run, opt *commitlog.ReadOptions, dst *commitlog.Records) error {
	r, err := b.olderRun(p, run)
	if err != nil {
		return err
	}
	if run.Gap {
		if opt.From, err = skipHole(ctx, r, run, opt.From); err != nil || opt.From >= run.End {
			return err
		}
	}
	if opt.From >= opt.To {
		return nil
	}
	older := *opt
	older.To = min(opt.To, run.End)
	return r.Read(ctx, older, dst)
}

// skips says whether readers of the partition go on behind what lies in a log that is out of reach (failover.read=skip):
// not for a broker that restarts or is slow, only for a log that a failover has sealed, or that is gone for good.
func (b *Broker) skips(p *partition, log ident.Log) bool {
	if !p.topic.conf.Load().SkipAway {
		return false
	}
	l := b.store.Map().Log(log)
	return l == nil || l.State == queuemapper.LogSealed
}

// skipHole is the first offset from o on at which a run that was sealed at its ceiling may have a record; the run's end
// when there is none. r is nil if the run has no records at all.
func skipHole(ctx context.Context, r runs.Run, run queuemapper.Run, o ident.Offset) (ident.Offset, error) {
	if r == nil {
		return run.End, nil
	}
	first, end, err := r.Extent(ctx)
	if err != nil {
		return o, err
	}
	if o >= end {
		return run.End, nil
	}
	return max(o, first), nil
}

// errAbsent: the log is this broker's, and in none of its directories (ADR 10).
var errAbsent = fmt.Errorf("no directory holds it: %w", runs.ErrAway)

// olderRun returns a sealed run, nil for one that was sealed at its ceiling and has no records. The bytes of a run in a
// log that no broker has now exist, but not within reach: runs.ErrAway.
func (b *Broker) olderRun(p *partition, run queuemapper.Run) (runs.Run, error) {
	host := b.hosted[run.Log]
	if host == nil {
		rec := b.store.Map().Log(run.Log)
		if rec == nil || rec.Host == b.cfg.ID {
			return nil, fmt.Errorf("log %s: %w", run.Log, errAbsent)
		}
		return b.remote.Run(rec.Host, refOf(p, run)), nil
	}
	q, ok := host.log.Sealed(run.Generation, p.id())
	if !ok && run.Gap {
		return nil, nil
	}
	if !ok {
		return nil, fmt.Errorf("log %s, %s of %s: %w", run.Log, run.Generation, p.id(), runs.ErrMissing)
	}
	return runs.Local{Queue: q}, nil
}

// refOf names a sealed run.
func refOf(p *partition, run queuemapper.Run) runs.Ref {
	return runs.Ref{
		Log: run.Log, Generation: run.Generation, Partition: p.id(), Start: run.Start, End: run.End, Gap: run.Gap,
	}
}

// isRemote reports whether an offset below the open run is in another broker's log.
func (b *Broker) isRemote(p *partition, o ident.Offset) bool {
	run, ok := b.store.Map().Locate(p.topic.newest(), p.index, o)
	return ok && b.hosted[run.Log] == nil
}

// askFor is how long a pass asks other brokers for more, when it has something to answer with.
const askFor = 500 * time.Millisecond

// mayAsk prepares a read in another broker's log: it takes a while, and memory of ours. False: not in this answer.
func (j *fetchJob) mayAsk(opt *commitlog.ReadOptions, res *fetchResult) bool {
	j.conn.watchPeer() // nobody reads for a client that is gone
	if j.askUntil.IsZero() {
		j.askUntil = time.Now().Add(askFor)
	} else if j.bytes > 0 && time.Now().After(j.askUntil) {
		res.later = true
		return false
	}
	opt.MaxBytes = max(min(opt.MaxBytes, runs.ChunkBytes), 0)
	res.remote, res.reserved = true, int64(opt.MaxBytes)
	if j.b.answers.Add(res.reserved) > j.b.answersLimit {
		j.b.answers.Add(-res.reserved)
		opt.MaxBytes, res.reserved = min(opt.MaxBytes, 1), 0 // one batch, while the budget is spent
	}
	j.held += res.reserved
	return true
}

// holdRemote counts records that another broker sent in the budget of answers, until they are written, in place of what
// was reserved for them.
func (j *fetchJob) holdRemote(res *fetchResult) {
	more := int64(res.records.Bytes) - res.reserved
	j.held += more
	j.b.answers.Add(more)
}
