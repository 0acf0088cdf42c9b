package queuemapper

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/internal/ident"
)

// Publication seals a group's open generation and opens the next one (O13), in one transaction
// with others of the same call (split as etcd's limits demand, each whole).
type Publication struct {
	Group *Group // as the caller read it; its revision is compared
	// Source is the log of the generation that ends: OPEN at the mover's epoch (a planned move)
	// or SEALED at the table's epoch (a controller). Nil for a group's first generation.
	Source *Log
	// Target is the log of the generation that begins: OPEN at the epoch in which it prepared.
	Target *Log
	Frame  ident.Frame
	Epoch  ident.Epoch // greater than every earlier one of the group
	// Ends of the generation that ends; a partition that is absent, or did not move, ended
	// where it started.
	Ends map[ident.Partition]ident.Offset
	// Gap seals the old generation at its ceiling, as its exact ends are out of reach: every partition that
	// may have records in it must be in Ends, with the ceiling. It takes the proof of O22.
	Gap bool
	// Ceiling of the generation that begins: nothing in it may be given an offset at or past it. 0: no bound.
	Ceiling ident.Offset
}

// guard is one log in one state at one epoch: what a transaction demands of it. A change of
// its witness set does not break it.
type guard struct {
	log   ident.Log
	state LogState
	epoch ident.LogEpoch
	gone  bool // there is no record of it; state and epoch mean nothing then

	// since, if it is not 0, makes the guard one of host and not of a log: it was not started after that revision, and no log of it
	// given up.
	since int64
	host  ident.Broker
}

func guardOf(l *Log) guard { return guard{log: l.ID, state: l.State, epoch: l.Epoch} }

// key is what a guard is about.
func (g guard) key() string {
	if g.since != 0 {
		return keyIncarnation(g.host)
	}
	return keyLog(g.log)
}

func (g guard) cmps(s *Store) []clientv3.Cmp {
	key := s.key(g.key())
	if g.since != 0 {
		return []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "<", g.since+1)}
	}
	if g.gone {
		return []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)}
	}
	above, below := logGuard(g.state, g.epoch)
	return []clientv3.Cmp{
		clientv3.Compare(clientv3.Value(key), ">", string(above)),
		clientv3.Compare(clientv3.Value(key), "<", string(below)),
	}
}

// holds says whether a record, nil if there is none, is what the guard demands.
func (g guard) holds(kv *mvccpb.KeyValue) bool {
	if kv == nil || g.gone {
		return g.gone && kv == nil
	}
	l, err := decodeLog(g.log, kv.Value, kv.ModRevision)
	return err == nil && l.State == g.state && l.Epoch == g.epoch
}

// prepared is a publication that was checked and encoded.
type prepared struct {
	index    int // in the call
	group    ident.Group
	revision int64
	guards   []guard
	value    []byte
}

// prepare checks a publication against the record that the caller read.
func (p *Publication) prepare() (prepared, error) {
	if p.Group == nil || p.Target == nil {
		return prepared{}, fmt.Errorf("%w: no group or no target", ErrInvalid)
	}
	bad := func(format string, args ...any) (prepared, error) {
		return prepared{}, fmt.Errorf("%w: group %d: %s", ErrInvalid, p.Group.ID, fmt.Sprintf(format, args...))
	}
	current := p.Group.Current()
	switch {
	case current == nil && (p.Source != nil || len(p.Group.Generations) > 0):
		return bad("source given, but no generation is open")
	case current != nil && (p.Source == nil || p.Source.ID != current.Log):
		return bad("the open generation is on log %s, not on the source", current.Log)
	case current != nil && p.Epoch <= current.Epoch && !plants.sameEpoch || p.Epoch < 0: // I5
		return bad("epoch %d does not follow %d", p.Epoch, current.Epoch)
	case p.Target.State != LogOpen:
		return bad("target log %s is not open", p.Target.ID)
	case p.Frame.Epoch != p.Target.Epoch || p.Frame.Position < 0:
		return bad("opening frame %s is not of the target's epoch %d", p.Frame, p.Target.Epoch)
	}
	if err := p.checkCeilings(current); err != nil {
		return prepared{}, err
	}
	fresh := p.Group.clone()
	out := prepared{group: p.Group.ID, revision: p.Group.Revision}
	if current != nil {
		ends := make(map[ident.Partition]ident.Offset)
		for q, end := range p.Ends {
			start := p.Group.End(q)
			if end < start || q.Index < 0 { // I5
				return bad("%s ends at %d, before its start %d", q, end, start)
			}
			if end > start {
				ends[q] = end
			}
		}
		last := &fresh.Generations[len(fresh.Generations)-1]
		last.Sealed, last.Ends, last.Gap, last.Ceiling = true, ends, p.Gap, 0
		fresh.raw = fresh.raw[:min(len(fresh.raw), len(fresh.Generations)-1)]
		if !plants.noSource {
			out.guards = append(out.guards, guardOf(p.Source)) // O13
		}
	}
	if !plants.noTarget {
		out.guards = append(out.guards, guardOf(p.Target)) // O13
	}
	fresh.Generations = append(fresh.Generations, Generation{Epoch: p.Epoch, Log: p.Target.ID, Frame: p.Frame, Ceiling: p.Ceiling})
	out.value = encodeGroup(fresh)
	return out, nil
}

// checkCeilings checks what the publication says about the ceilings of both generations.
func (p *Publication) checkCeilings(current *Generation) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: group %d: %s", ErrInvalid, p.Group.ID, fmt.Sprintf(format, args...))
	}
	switch {
	case p.Ceiling < 0:
		return bad("ceiling %d", p.Ceiling)
	case p.Gap && (current == nil || current.Ceiling == 0):
		return bad("no ceiling to seal at")
	}
	for q, end := range p.Ends {
		switch {
		case p.Gap && end != current.Ceiling:
			return bad("%s ends at %d, not at the ceiling %d", q, end, current.Ceiling)
		case !p.Gap && current != nil && current.Ceiling > 0 && end > current.Ceiling:
			return bad("%s ends at %d, beyond the ceiling %d", q, end, current.Ceiling)
		case p.Ceiling > 0 && end > p.Ceiling:
			return bad("%s starts at %d, beyond the next ceiling %d", q, end, p.Ceiling)
		}
	}
	return nil
}

// Publish applies publications. The errors, by index, are nil, ErrConflict, ErrUnknown (settle
// it with Touch, O18), ErrUnavailable (nothing happened) or ErrInvalid (nothing was sent).
func (s *Store) Publish(ctx context.Context, pubs []Publication) []error {
	errs := make([]error, len(pubs))
	var work []prepared
	taken := make(map[ident.Group]bool)
	for i := range pubs {
		p, err := pubs[i].prepare()
		switch {
		case err != nil:
			errs[i] = fmt.Errorf("publish: %w", err)
		case taken[p.group]:
			errs[i] = fmt.Errorf("publish: %w: group %d twice in one call", ErrInvalid, p.group)
		default:
			taken[p.group], p.index = true, i
			work = append(work, p)
		}
	}
	newest := int64(0)
	for len(work) > 0 {
		batch := s.takeBatch(work)
		rest := work[len(batch):]
		again, seen, err := s.publishBatch(ctx, batch, errs)
		newest = max(newest, seen)
		if err != nil {
			for _, p := range batch {
				errs[p.index] = fmt.Errorf("publish group %d: %w", p.group, err)
			}
		}
		work = append(again, rest...)
	}
	if err := s.caughtUp(ctx, newest); err != nil {
		for i := range errs {
			if errs[i] == nil {
				errs[i] = fmt.Errorf("publish: %w", err)
			}
		}
	}
	return errs
}

// takeBatch returns the longest head of work that fits into one transaction.
func (s *Store) takeBatch(work []prepared) []prepared {
	guards := make(map[guard]bool)
	bytes := 0
	for i, p := range work {
		for _, g := range p.guards {
			guards[g] = true
		}
		bytes += len(p.value)
		if i > 0 && (i+1+2*len(guards) > s.cfg.MaxOps || bytes > s.cfg.MaxBytes) {
			return work[:i]
		}
	}
	return work
}

// publishBatch sends one transaction. If its compare fails, those that were the cause get
// ErrConflict and the others come back to be sent again.
func (s *Store) publishBatch(ctx context.Context, batch []prepared, errs []error) (again []prepared, seen int64, err error) {
	var cmps []clientv3.Cmp
	var puts, gets []clientv3.Op
	guarded := make(map[guard]bool)
	read := make(map[ident.Log]bool)
	for _, p := range batch {
		key := keyGroup(p.group)
		cmps = append(cmps, s.unchanged(key, p.revision)) // O13
		puts = append(puts, s.put(key, p.value))
		gets = append(gets, clientv3.OpGet(s.key(key), clientv3.WithKeysOnly()))
		for _, g := range p.guards {
			if !guarded[g] {
				guarded[g] = true
				cmps = append(cmps, g.cmps(s)...)
			}
			if !read[g.log] {
				read[g.log] = true
				gets = append(gets, clientv3.OpGet(s.key(keyLog(g.log))))
			}
		}
	}
	resp, err := s.commit(ctx, "publish", cmps, puts, gets)
	if err != nil {
		return nil, 0, err
	}
	if resp.Succeeded {
		return nil, resp.Header.Revision, nil
	}
	there := make(map[string]*mvccpb.KeyValue)
	for _, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().GetKvs() {
			there[string(kv.Key)] = kv
			seen = max(seen, kv.ModRevision)
		}
	}
	for _, p := range batch {
		kv := there[s.key(keyGroup(p.group))]
		lost := kv == nil || kv.ModRevision != p.revision || slices.ContainsFunc(p.guards, func(g guard) bool {
			return !g.holds(there[s.key(keyLog(g.log))])
		})
		if lost {
			errs[p.index] = fmt.Errorf("publish group %d: %w", p.group, ErrConflict)
		} else {
			again = append(again, p)
		}
	}
	if len(again) == len(batch) {
		return nil, seen, fmt.Errorf("%w: the compare failed without a cause", ErrConflict)
	}
	return again, seen, nil
}

// Touch writes a group's record unchanged, comparing nothing but its existence, so that every
// Publish that is still under way against an older revision fails (O18). It returns the record
// after the write: which of the two won. It tries again until its own answer is known, or ctx ends.
func (s *Store) Touch(ctx context.Context, id ident.Group) (*Group, error) {
	key := s.key(keyGroup(id))
	exists := []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), ">", 0)}
	write := []clientv3.Op{clientv3.OpPut(key, "", clientv3.WithIgnoreValue()), clientv3.OpGet(key)}
	if plants.touchReads {
		write = write[1:]
	}
	resp, _, err := s.settle(ctx, "touch_group", exists, write, nil)
	if err != nil {
		return nil, fmt.Errorf("touch group %d: %w", id, err)
	}
	if !resp.Succeeded {
		return nil, fmt.Errorf("touch group %d: %w", id, ErrNotFound)
	}
	kv := resp.Responses[len(resp.Responses)-1].GetResponseRange().Kvs[0]
	if err := s.caughtUp(ctx, kv.ModRevision); err != nil {
		return nil, fmt.Errorf("touch group %d: %w", id, err)
	}
	if g := s.Map().Group(id); g != nil && g.Revision == kv.ModRevision {
		return g, nil
	}
	return decodeGroup(id, kv.Value, kv.ModRevision, nil)
}

// Split moves one partition to another group (O20). Both groups go on to a next generation in one
// transaction: the source's without the partition, so that an append that was on its way to the old
// one is refused like any other to a sealed generation; the target's with it.
type Split struct {
	Topic *Topic
	Index int32
	// Source ends the generation in which the partition has lived, at Source.Ends.
	Source Publication
	// Target has an epoch above both groups' older ones, so that the partition's leader epoch never falls.
	Target Publication
}

// SplitPartition applies a Split: nil, ErrConflict, ErrUnknown (settle it with a Touch of either
// group), ErrUnavailable or ErrInvalid.
func (s *Store) SplitPartition(ctx context.Context, sp Split) error {
	groups, topic, err := sp.prepare()
	if err != nil {
		return fmt.Errorf("split partition: %w", err)
	}
	tkey := keyTopic(topic.Name)
	cmps := []clientv3.Cmp{s.unchanged(tkey, sp.Topic.Revision)}
	puts := []clientv3.Op{s.put(tkey, encodeTopic(topic))}
	gets := []clientv3.Op{clientv3.OpGet(s.key(tkey))}
	guarded := make(map[guard]bool)
	for _, p := range groups {
		key := keyGroup(p.group)
		cmps = append(cmps, s.unchanged(key, p.revision))
		puts = append(puts, s.put(key, p.value))
		gets = append(gets, clientv3.OpGet(s.key(key)))
		for _, g := range p.guards {
			if !guarded[g] {
				guarded[g] = true
				cmps = append(cmps, g.cmps(s)...) // O20
			}
		}
	}
	resp, err := s.commit(ctx, "split", cmps, puts, gets)
	switch {
	case err != nil:
	case resp.Succeeded:
		err = s.caughtUp(ctx, resp.Header.Revision)
	default:
		err = s.conflictSeen(ctx, resp)
		err = errors.Join(err, ErrConflict)
	}
	if err != nil {
		return fmt.Errorf("split %s-%d: %w", topic.Name, sp.Index, err)
	}
	return nil
}

// prepare checks a split and encodes the groups' new records, source first.
func (sp *Split) prepare() (groups [2]prepared, topic *Topic, err error) {
	pl := places(sp.Topic, sp.Index)
	if len(pl) == 0 {
		return groups, nil, fmt.Errorf("%w: no such partition", ErrInvalid)
	}
	for i, pub := range []*Publication{&sp.Source, &sp.Target} {
		if groups[i], err = pub.prepare(); err != nil {
			return groups, nil, err
		}
	}
	source, target := sp.Source.Group, sp.Target.Group
	last := pl[len(pl)-1]
	current := source.Current()
	switch {
	case last.Group != source.ID || target.ID == source.ID:
		err = fmt.Errorf("%w: it lives in group %d, leaves %d for %d", ErrInvalid, last.Group, source.ID, target.ID)
	case current == nil:
		err = fmt.Errorf("%w: group %d is not open", ErrInvalid, source.ID)
	case sp.Target.Epoch <= current.Epoch:
		err = fmt.Errorf("%w: epoch %d does not follow %d of the group it leaves", ErrInvalid, sp.Target.Epoch, current.Epoch) // O20
	case sp.Target.Ceiling > 0 && sp.Source.Ends[ident.Partition{Topic: sp.Topic.ID, Index: sp.Index}] > sp.Target.Ceiling:
		err = fmt.Errorf("%w: the partition is beyond the target's ceiling %d", ErrInvalid, sp.Target.Ceiling)
	}
	if err != nil {
		return groups, nil, err
	}
	p := ident.Partition{Topic: sp.Topic.ID, Index: sp.Index}
	from := max(last.From, source.End(p), sp.Source.Ends[p])
	fresh := *sp.Topic
	fresh.Partitions = slices.Clone(sp.Topic.Partitions)
	pl = slices.Clone(pl)
	pl[len(pl)-1].Last = current.Epoch
	fresh.Partitions[sp.Index] = append(pl, Residence{Group: target.ID, From: from, First: sp.Target.Epoch})
	return groups, &fresh, nil
}
