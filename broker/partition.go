package broker

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/skeinmq/skein/broker/runs"
	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
)

// openPartition finds a partition by topic name and index, and its open run here.
func (b *Broker) openPartition(name string, index int32) (*partition, *openRun, error) {
	t := b.topic(name)
	if t == nil {
		return nil, nil, refuseCode(protocol.CodeUnknownTopicOrPartition)
	}
	p := t.partition(index)
	if p == nil {
		return nil, nil, refuseCode(protocol.CodeUnknownTopicOrPartition)
	}
	run := p.open.Load()
	if run == nil {
		return p, nil, commitlog.ErrNotOpen
	}
	return p, run, nil
}

// leaderOf returns who leads a partition, and where it is reached.
func (b *Broker) leaderOf(t *topic, index int32) (protocol.NodeEndpoint, protocol.LeaderEpoch, bool) {
	m := b.store.Map()
	run, log, ok := m.Owner(t.newest(), index)
	if !ok || log == nil {
		return protocol.NodeEndpoint{}, protocol.LeaderEpoch{}, false
	}
	node, ok := b.endpoint(m, log.Host)
	return node, protocol.LeaderEpoch{NodeID: int32(log.Host), Epoch: int32(run.Generation.Epoch), Known: true}, ok
}

// runsFrom iterates a partition's runs that hold anything at or after from, in offset order; the open one is last. One
// whose log is nowhere is yielded as an error, unless nothing but lost records are left in it.
func (b *Broker) runsFrom(p *partition, open *openRun, from ident.Offset) iter.Seq2[runs.Run, error] {
	return func(yield func(runs.Run, error) bool) {
		if from < open.queue.Start() {
			m := b.store.Map()
			for _, run := range m.Runs(p.topic.newest(), p.index) {
				if run.Open || run.Generation == open.gen || run.End <= from {
					continue
				}
				if next, _ := m.Readable(p.id(), run, max(run.Start, from)); next >= run.End {
					continue
				}
				r, err := b.olderRun(p, run)
				if r == nil && err == nil {
					continue
				}
				if !yield(r, err) || err != nil {
					return
				}
			}
		}
		yield(runs.Local{Queue: open.queue}, nil)
	}
}

// epochEnd returns the greatest leader epoch at or below e that the partition has had, and where it ended (KIP-320).
func (b *Broker) epochEnd(p *partition, open *openRun, e ident.Epoch, high ident.Offset) (epoch ident.Epoch, end ident.Offset, ok bool) {
	if e == open.gen.Epoch {
		return e, high, true
	}
	if e > open.gen.Epoch {
		return 0, 0, false
	}
	epoch, end, isOpen, ok := b.store.Map().EpochEnd(p.topic.newest(), p.index, e)
	if isOpen {
		end = high
	}
	return epoch, end, ok
}

// confirmPatience is how long the map's store may take to confirm an owner.
const confirmPatience = time.Second

// confirm makes sure, before a client is told that an offset or an epoch does not exist, that this broker is still the
// owner: one that hears nothing from the others may not know of offsets that its successor has given, and a client that
// believed it would begin again somewhere else. What it cannot confirm is commitlog.ErrNotOpen, after which clients look for
// another leader.
func (b *Broker) confirm(ctx context.Context, run *openRun) error {
	ctx, cancel := context.WithTimeout(ctx, confirmPatience)
	defer cancel()
	switch open, err := b.store.StillOpen(ctx, run.gen, run.log.id, run.log.epoch); {
	case err != nil:
		return fmt.Errorf("confirm the owner of group %d: %w: %v", run.gen.Group, commitlog.ErrNotOpen, err)
	case !open:
		return fmt.Errorf("confirm the owner of group %d: %w", run.gen.Group, commitlog.ErrNotOpen)
	}
	return nil
}

// epochAt returns the leader epoch of the run that holds an offset.
func (b *Broker) epochAt(p *partition, open *openRun, o ident.Offset) int32 {
	if o < open.queue.Start() {
		if run, ok := b.store.Map().Locate(p.topic.newest(), p.index, o); ok {
			return int32(run.Generation.Epoch)
		}
	}
	return int32(open.gen.Epoch)
}
