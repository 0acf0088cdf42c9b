package queuemapper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/internal/ident"
)

// LogEpochError says that a disk and the log's record do not belong together: the disk is an
// old copy, or the record is another store's. It is an ErrInvalid.
type LogEpochError struct {
	Log    ident.Log
	Record ident.LogEpoch // 0: there is no record
	Begun  ident.LogEpoch // that the record knows of
	Disk   ident.LogEpoch // newest that the disk has begun; 0: none
}

func (e *LogEpochError) Error() string {
	switch {
	case e.Record == 0:
		return fmt.Sprintf("log %s has begun epoch %d on its disk, but the map does not know it", e.Log, e.Disk)
	case e.Record < e.Disk:
		return fmt.Sprintf("log %s has begun epoch %d on its disk, but the map is only at %d: it is older than the disk", e.Log, e.Disk, e.Record)
	}
	return fmt.Sprintf("log %s has begun epoch %d according to the map, but its disk only %d: it is an old copy of the disk", e.Log, e.Begun, e.Disk)
}

// Is makes the error an ErrInvalid.
func (e *LogEpochError) Is(target error) bool { return target == ErrInvalid }

// ReopenLog is the one way to open a log (O15, O17): it registers a new log at epoch 1, or
// moves OPEN(e) or SEALED(e) to OPEN(e+1) with the given incarnation of the host and witness set, comparing the
// record's revision. disk is the newest epoch that the disk has begun. It must lie between what the
// record knows to be begun and the record's epoch: a LogEpochError otherwise. The host writes the new
// epoch down on the disk, then calls BeganLog, and only then serves. A new log's registration compares its host's starts as they
// were before: one that is late does not land after LoseLog.
func (s *Store) ReopenLog(ctx context.Context, id ident.Log, host ident.Broker, incarnation int64, disk ident.LogEpoch, witnesses []Witness) (*Log, error) {
	return s.ReopenLogWith(ctx, id, host, incarnation, disk, func(ident.LogEpoch) []Witness { return witnesses })
}

// ReopenLogWith is ReopenLog with a witness set that is chosen for the new epoch: before choose returns, every member
// has the log's whole table (O15). The record is compared as it was read before that.
func (s *Store) ReopenLogWith(ctx context.Context, id ident.Log, host ident.Broker, incarnation int64, disk ident.LogEpoch, choose func(epoch ident.LogEpoch) []Witness) (*Log, error) {
	// Not from the snapshot: what it has may be from before this broker was away.
	resp, err := s.get(ctx, s.key(keyLog(id)))
	if err != nil {
		return nil, fmt.Errorf("reopen log %s: %w", id, err)
	}
	fresh := &Log{ID: id, Host: host, Incarnation: incarnation, Epoch: 1, State: LogOpen}
	var was Log
	var guards []guard
	if len(resp.Kvs) == 0 {
		guards = []guard{{host: host, since: resp.Header.Revision}} // LoseLog comes before the read or breaks the guard
		if plants.takeLost {
			was.Epoch, fresh.Epoch = disk, disk+1
		}
		if plants.lateNew {
			guards = nil
		}
	} else {
		l, err := decodeLog(id, resp.Kvs[0].Value, resp.Kvs[0].ModRevision)
		if err != nil {
			return nil, fmt.Errorf("reopen log %s: %w", id, err)
		}
		was = *l
		fresh.Epoch = was.Epoch + 1 // O15: whatever the state, and never the set that was sent before
	}
	if was.Epoch < disk || was.Begun > disk {
		return nil, fmt.Errorf("reopen log: %w", &LogEpochError{Log: id, Record: was.Epoch, Begun: was.Begun, Disk: disk})
	}
	fresh.Begun, fresh.Witnesses = disk, slices.Clone(choose(fresh.Epoch))
	return s.swapLog(ctx, "reopen", was.Revision, fresh, guards...)
}

// BeganLog records that the epoch of l, as ReopenLog returned it, is on the log's disk. From then on a
// disk without it is known to be an old copy. A witness set that was swapped meanwhile stays.
func (s *Store) BeganLog(ctx context.Context, l *Log) (*Log, error) {
	for was := l; ; {
		if was.State != LogOpen || was.Epoch != l.Epoch || was.Host != l.Host {
			return nil, fmt.Errorf("begin log %s at epoch %d: it is %v at %d: %w", l.ID, l.Epoch, was.State, was.Epoch, ErrConflict)
		}
		if was.Begun == l.Epoch {
			return was, nil
		}
		fresh := *was
		fresh.Begun = l.Epoch
		began, err := s.swapLog(ctx, "begin", was.Revision, &fresh)
		if !errors.Is(err, ErrConflict) {
			return began, err
		}
		if was = s.Map().Log(l.ID); was == nil { // what won the compare is in the snapshot
			return nil, err
		}
	}
}

// StillOpen reports whether a generation is its group's open one and its log OPEN at an epoch, at some time after the
// call: it asks the store, not the snapshot. ErrUnavailable: that is not known.
func (s *Store) StillOpen(ctx context.Context, g ident.Generation, log ident.Log, epoch ident.LogEpoch) (bool, error) {
	resp, err := s.get(ctx, s.key(keyGroup(g.Group)))
	if err != nil || len(resp.Kvs) == 0 {
		return false, err
	}
	rec, err := decodeGroup(g.Group, resp.Kvs[0].Value, resp.Kvs[0].ModRevision, nil)
	if err != nil {
		return false, err
	}
	if cur := rec.Current(); cur == nil || cur.Log != log || cur.Epoch != g.Epoch || cur.Frame != g.Frame {
		return false, nil
	}
	// The log second: at this epoch now, it was at the time of the first answer.
	if resp, err = s.get(ctx, s.key(keyLog(log))); err != nil || len(resp.Kvs) == 0 {
		return false, err
	}
	l, err := decodeLog(log, resp.Kvs[0].Value, resp.Kvs[0].ModRevision)
	return err == nil && l.State == LogOpen && l.Epoch == epoch, err
}

// SwapWitnesses gives a log another witness set, comparing the record's revision (O1): only a record that is OPEN at
// the epoch of l, as l was read, is changed. ErrConflict: the snapshot has what won; the epoch may be over, or the
// host itself has written the record. ErrUnknown: ctx ended before the answer was known; settle it with SettleLog (O8)
// before anything is acked by the old set or by the new one alone.
func (s *Store) SwapWitnesses(ctx context.Context, l *Log, set []Witness) (*Log, error) {
	if l.State != LogOpen {
		return nil, fmt.Errorf("swap witnesses of log %s: %w: it is not open", l.ID, ErrInvalid)
	}
	fresh := *l
	fresh.Witnesses = slices.Clone(set)
	return s.swapLog(ctx, "swap_witnesses", l.Revision, &fresh)
}

// SettleLog writes a log's record unchanged, comparing nothing but its existence, so that every write of it that is
// still under way against an older revision fails (O8). It returns the record after the write: which of them won. It
// tries again until its own answer is known, or ctx ends.
func (s *Store) SettleLog(ctx context.Context, id ident.Log) (*Log, error) {
	key := s.key(keyLog(id))
	exists := []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), ">", 0)}
	write := []clientv3.Op{clientv3.OpPut(key, "", clientv3.WithIgnoreValue()), clientv3.OpGet(key)}
	if plants.settleReads {
		write = write[1:]
	}
	resp, _, err := s.settle(ctx, "settle_log", exists, write, nil)
	if err != nil {
		return nil, fmt.Errorf("settle log %s: %w", id, err)
	}
	if !resp.Succeeded {
		return nil, fmt.Errorf("settle log %s: %w", id, ErrNotFound)
	}
	kv := resp.Responses[len(resp.Responses)-1].GetResponseRange().Kvs[0]
	if err := s.caughtUp(ctx, kv.ModRevision); err != nil {
		return nil, fmt.Errorf("settle log %s: %w", id, err)
	}
	l, err := decodeLog(id, kv.Value, kv.ModRevision)
	if err != nil {
		return nil, fmt.Errorf("settle log %s: %w", id, err)
	}
	return l, nil
}

// SealLog moves a log OPEN(e) → SEALED(e), comparing the revision (O9). It demands that every log of others is OPEN at its
// epoch in the same transaction: give one that groups can go to, so that two that seal each other's log at the same time do
// not leave none (O19). ErrConflict: the snapshot has what won.
func (s *Store) SealLog(ctx context.Context, l *Log, others ...*Log) (*Log, error) {
	guards := make([]guard, len(others))
	for i, o := range others {
		guards[i] = guardOf(o)
	}
	if l.State != LogOpen {
		return nil, fmt.Errorf("seal log %s: %w: it is not open", l.ID, ErrInvalid)
	}
	for _, g := range guards {
		if g.state != LogOpen || g.log == l.ID {
			return nil, fmt.Errorf("seal log %s: %w: log %s does not go on", l.ID, ErrInvalid, g.log)
		}
	}
	if plants.sealLast {
		guards = nil
	}
	fresh := *l
	fresh.State = LogSealed
	return s.swapLog(ctx, "seal", l.Revision, &fresh, guards...)
}

// swapLog writes a log's record, comparing the revision of the one before (O1). The nonce
// makes the bytes this call's own: after a lost answer, finding them means that it won.
func (s *Store) swapLog(ctx context.Context, verb string, revision int64, fresh *Log, guards ...guard) (*Log, error) {
	var nonce [8]byte
	if _, err := io.ReadFull(s.cfg.Rand, nonce[:]); err != nil {
		return nil, fmt.Errorf("%s log %s: %w", verb, fresh.ID, err)
	}
	written, err := s.swap(ctx, verb+"_log", keyLog(fresh.ID), revision, encodeLog(fresh, nonce), nil, guards...)
	if err != nil {
		return nil, fmt.Errorf("%s log %s: %w", verb, fresh.ID, err)
	}
	fresh.Revision = written
	return fresh, nil
}
