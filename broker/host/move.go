package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

const (
	// greetTime bounds how long a target is waited for before anything is frozen.
	greetTime = time.Second
	// freezeTime bounds how long what is under way may take to be committed: appends wait for it.
	freezeTime = time.Second
	// prepareTime bounds the preparing of a planned move: appends wait for it.
	prepareTime = 700 * time.Millisecond
	// awaitTime bounds how long appends wait for the new owner to know that it is one. Nothing depends on it but
	// clients that come there too early and have to try again.
	awaitTime = 200 * time.Millisecond
	// cutTime bounds how long a move waits for the end of what moved to be committed in the old log.
	cutTime = 2 * time.Second
	// batchPartitions bounds the partitions that are frozen together, unless one group has more.
	batchPartitions = 4096
)

// errFreeze: what was under way was not committed in time.
var errFreeze = errors.New("the log does not commit")

// Moved is the outcome of one group's planned move.
type Moved struct {
	Group    ident.Group
	From, To ident.Log
	Epoch    ident.Epoch   // of the new generation
	Pause    time.Duration // for which the group's appends waited
	Err      error         // nil: it moved

	at ident.Epoch // the only generation that is moved; anyEpoch: whichever is open
}

// anyEpoch stands for whichever generation is open.
const anyEpoch ident.Epoch = -1

// Move moves groups that are open in logs here to another log, here or at another broker, by planned moves (O18), a
// batch at a time: frozen together, prepared by one request, published by one call. No byte is copied. Whatever
// happens, afterwards exactly the generations that the map names take appends. The outcomes are in the order of the groups.
func (h *Host) Move(ctx context.Context, groups []ident.Group, to ident.Log) []Moved {
	return h.MoveAt(ctx, groups, nil, to)
}

// MoveAt is Move of the generations that the caller knows, one for each group: a group that has another one is not moved. It may
// have been away and come back, by a later order, or have other partitions. No epochs at all: it is Move.
func (h *Host) MoveAt(ctx context.Context, groups []ident.Group, epochs []ident.Epoch, to ident.Log) []Moved {
	m := h.store.Map()
	out := make([]Moved, len(groups))
	bySource := make(map[*Hosted][]*Moved)
	var sources []*Hosted // in the order of the groups
	for i, id := range groups {
		v := &out[i]
		v.Group, v.To, v.at = id, to, anyEpoch
		if epochs != nil {
			v.at = epochs[i]
		}
		from := h.OpenIn(m.Group(id))
		switch target := m.Log(to); {
		case from == nil:
			v.Err = ErrElsewhere
		case target == nil || target.State != queuemapper.LogOpen:
			v.Err = fmt.Errorf("log %s is not open", to)
		case from.ID == to:
			v.Err = errors.New("it is there already")
		default:
			v.From = from.ID
			if bySource[from] == nil {
				sources = append(sources, from)
			}
			bySource[from] = append(bySource[from], v)
		}
	}
	if len(sources) == 0 {
		return out
	}
	if err := h.greet(ctx, m, to); err != nil {
		for _, from := range sources {
			for _, v := range bySource[from] {
				v.Err = err
			}
		}
		return out
	}
	for _, from := range sources {
		for rest := bySource[from]; len(rest) > 0; {
			n := h.batchOf(m, rest)
			err := h.moveBatch(ctx, from, to, rest[:n])
			rest = rest[n:]
			if errors.Is(err, errFreeze) { // each batch would wait as long
				for _, v := range rest {
					v.Err = err
				}
				break
			}
		}
	}
	return out
}

// greet makes sure, before anything is frozen, that the broker of the target answers and knows the map, and that the map takes writes: when a
// broker starts, its files and the map's on one disk can hold both up for some tenths of a second.
func (h *Host) greet(ctx context.Context, m *queuemapper.Map, to ident.Log) error {
	gctx, cancel := context.WithTimeout(ctx, max(greetTime, h.cfg.Patience))
	defer cancel()
	if target := m.Log(to); h.elsewhere(target) {
		if err := h.cfg.Targets.AwaitMap(gctx, target.Host, m.Revision()); err != nil {
			return err
		}
	}
	return h.store.AwaitWrite(gctx)
}

// elsewhere reports whether a log is another broker's.
func (h *Host) elsewhere(l *queuemapper.Log) bool { return l.Host != h.cfg.ID && h.cfg.Targets != nil }

// batchOf says how many of the groups are moved together.
func (h *Host) batchOf(m *queuemapper.Map, groups []*Moved) int {
	partitions := 0
	for i, v := range groups {
		partitions += m.Partitions(v.Group)
		if i > 0 && (i == h.cfg.MoveBatch || partitions > batchPartitions) {
			return i
		}
	}
	return len(groups)
}

// moving is one batch under way.
type moving struct {
	from   *Hosted
	target *queuemapper.Log
	list   []*Moved // those that are frozen here
	pubs   []queuemapper.Publication
	old    []ident.Generation
}

// moveBatch moves groups together and tells each outcome. It returns why none of them was published, if so.
func (h *Host) moveBatch(ctx context.Context, from *Hosted, to ident.Log, list []*Moved) error {
	all := make(map[ident.Group]*Moved, len(list))
	ids := make([]ident.Group, len(list))
	for i, v := range list {
		ids[i], all[v.Group] = v.Group, v
		v.Err = ErrBusy
	}
	mine := h.claim(ids...)
	defer h.cfg.Changed(mine...)
	defer h.release(mine...)
	b := moving{from: from}
	m := h.store.Map()
	for _, id := range mine {
		v := all[id]
		v.Err = nil
		switch g := m.Group(id); {
		case h.OpenIn(g) != from: // somebody else moved it, and it would keep the others from moving
			v.Err = ErrElsewhere
		case v.at != anyEpoch && v.at != g.Current().Epoch:
			v.Err = fmt.Errorf("its epoch is %d, and it was to be moved at %d", g.Current().Epoch, v.at)
		default:
			b.list = append(b.list, v)
		}
	}
	if len(b.list) == 0 {
		return nil
	}
	held := h.cfg.Now()
	if err := h.freeze(ctx, &b, to); err != nil {
		h.thaw(&b, err)
		return err
	}
	h.finish(ctx, &b, h.publish(ctx, &b))
	pause := h.cfg.Now().Sub(held)
	failed := 0
	for _, v := range b.list {
		v.Pause = pause
		if v.Err != nil {
			failed++
		}
	}
	h.log.Info("groups moved", "groups", len(b.list), "failed", failed, "from", from.ID, "to", to, "pause_ms", pause.Milliseconds())
	return nil
}

// freeze stops the groups, has their next generations prepared and makes the publications.
func (h *Host) freeze(ctx context.Context, b *moving, to ident.Log) error {
	ids := make([]ident.Group, len(b.list))
	for i, v := range b.list {
		ids[i] = v.Group
	}
	states, err := b.from.freeze(ctx, h.cfg.Patience, ids...)
	if err != nil {
		return err
	}
	m := h.store.Map()
	source := m.Log(b.from.ID)
	b.target = m.Log(to)
	if source == nil || source.Epoch != b.from.Epoch || source.State != queuemapper.LogOpen || b.target == nil { // O13: what is compared is that it is open
		return fmt.Errorf("log %s or %s: %w", b.from.ID, to, ErrNotHosted)
	}
	for _, v := range b.list {
		g := m.Group(v.Group)
		cur := g.Current()
		if cur == nil || cur.Log != b.from.ID {
			return fmt.Errorf("group %d is not open in log %s any more", v.Group, b.from.ID)
		}
		b.old = append(b.old, generationOf(v.Group, cur))
		v.Epoch = cur.Epoch + 1
		b.pubs = append(b.pubs, queuemapper.Publication{
			Group: g, Source: source, Target: b.target, Epoch: v.Epoch, Ends: queuemapper.EndsOf(states[v.Group]),
			Ceiling: h.reserves.ceiling(v.Group, cur, states[v.Group]),
		})
	}
	return h.open(ctx, b, states)
}

// open has the opening frames written at the target (O12).
func (h *Host) open(ctx context.Context, b *moving, states map[ident.Group][]ident.PartitionState) error {
	openings := make([]commitlog.Opening, len(b.pubs))
	for i, p := range b.pubs {
		openings[i] = commitlog.Opening{Group: p.Group.ID, Epoch: p.Epoch, State: states[p.Group.ID], Ceiling: p.Ceiling}
	}
	pctx, cancel := context.WithTimeout(ctx, max(prepareTime, h.cfg.Patience))
	defer cancel()
	frames, err := h.prepareAt(pctx, b.target, openings)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if len(frames) != len(b.pubs) {
		return fmt.Errorf("prepare: %d frames for %d openings", len(frames), len(b.pubs))
	}
	for i := range b.pubs {
		b.pubs[i].Frame = frames[i]
	}
	return nil
}

// thaw ends a move of which nothing was published: what was prepared is garbage (O3).
func (h *Host) thaw(b *moving, cause error) {
	for _, v := range b.list {
		// A freeze that was given up may still have stopped the group.
		v.Err = errors.Join(cause, b.from.Log.Thaw(v.Group))
	}
}

// publish writes the moves into the map and finds out which of them are there; the errors of the others say why not.
// A lost answer is settled by a write (O18): the touch makes the publication that may still be under way fail, so what
// the record says after it is final. Until then nobody appends, so there is no giving up but with the broker itself.
func (h *Host) publish(ctx context.Context, b *moving) []error {
	errs := h.store.Publish(ctx, b.pubs)
	for i, err := range errs {
		if errors.Is(err, queuemapper.ErrUnknown) {
			errs[i] = h.settle(&b.pubs[i], err)
		}
	}
	return errs
}

// settle finds out whether a publication whose answer was lost has landed, by writes only: nil if it has, whatever came
// after it. errUnsettled: nobody knows, and nobody ever will in this life.
func (h *Host) settle(pub *queuemapper.Publication, cause error) error {
	for delay := 10 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		g, err := h.store.Touch(h.life, pub.Group.ID)
		if err == nil {
			for i, gen := range g.Generations {
				if plants.thawAnyway && i < len(g.Generations)-1 {
					continue
				}
				if gen.Epoch == pub.Epoch && gen.Frame == pub.Frame && gen.Log == pub.Target.ID {
					return nil
				}
			}
			return fmt.Errorf("publish group %d: not applied: %w", pub.Group.ID, cause)
		}
		h.log.Warn("settle a move", "group", pub.Group.ID, "err", err)
		if err := h.cfg.Pause(h.life, delay); err != nil {
			return fmt.Errorf("%w: %w", errUnsettled, err)
		}
	}
}

// errUnsettled: whether a group moved is not known. It stays frozen.
var errUnsettled = errors.New("the outcome of a move is not known")

// over says whether the map has ended a generation, and where. Until a group's writer has looked, a refused publication says
// nothing about that: an earlier one may have landed long ago and been followed by others (O18).
func (h *Host) over(old ident.Generation, drained map[ident.Partition]ident.Offset) (ends map[ident.Partition]ident.Offset, over bool) {
	g := h.store.Map().Group(old.Group)
	for i := range g.Generations {
		if gen := &g.Generations[i]; generationOf(g.ID, gen) == old {
			return gen.Ends, gen.Sealed && !plants.thawAnyway
		}
	}
	return drained, !plants.thawAnyway // it was trimmed: nothing of it is left to read
}

// finish makes the logs follow what was published: the new owner knows before the old one lets go, so that clients are
// not sent to a broker that knows nothing. What was not published goes on here.
func (h *Host) finish(ctx context.Context, b *moving, errs []error) {
	var sealed []commitlog.MapGeneration
	var ends []*Moved
	for i, err := range errs {
		v := b.list[i]
		at := b.pubs[i].Ends
		if v.Err = err; errors.Is(err, errUnsettled) {
			continue
		} else if err != nil {
			landed, over := h.over(b.old[i], at)
			if !over {
				v.Err = errors.Join(err, b.from.Log.Thaw(v.Group))
				continue
			}
			at = landed
		}
		sealed = append(sealed, commitlog.MapGeneration{Generation: b.old[i], Ends: at})
		ends = append(ends, v)
	}
	if len(sealed) == 0 {
		return
	}
	if !h.elsewhere(b.target) {
		h.cfg.Changed() // Follow opens them
	} else {
		actx, cancel := context.WithTimeout(ctx, max(awaitTime, h.cfg.Patience))
		defer cancel()
		if err := h.cfg.Targets.AwaitMap(actx, b.target.Host, h.store.Map().Revision()); err != nil {
			h.log.Info("the new owner has not said that it knows", "broker", b.target.Host, "err", err)
		}
	}
	if err := h.cut(ctx, b.from, sealed...); err != nil {
		for _, v := range ends {
			v.Err = errors.Join(v.Err, err)
		}
	}
}

// freeze stops groups of a log, and waits for what is under way in them, but not longer than appends can.
func (from *Hosted) freeze(ctx context.Context, patience time.Duration, groups ...ident.Group) (map[ident.Group][]ident.PartitionState, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, max(freezeTime, patience), errFreeze)
	defer cancel()
	return from.Log.Freeze(ctx, groups...)
}

// cut ends generations in the log that they were in, as was published. It waits a while for that to be on the disk and
// witnessed; then it goes on without the caller: nothing depends on it but what a restart has to ask the map. A log
// whose witnesses are gone, and that has no quorum to say so, would never let go.
func (h *Host) cut(ctx context.Context, from *Hosted, sealed ...commitlog.MapGeneration) error {
	ctx, cancel := context.WithTimeout(ctx, cutTime)
	defer cancel()
	err := from.Log.Seal(ctx, sealed...)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		h.log.Info("the cut of what moved is not witnessed yet", "log", from.ID, "groups", len(sealed))
		return nil
	}
	return fmt.Errorf("write the cut down: %w", err)
}
