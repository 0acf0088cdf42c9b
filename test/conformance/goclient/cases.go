package goclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/skeinmq/skein/test/conformance/record"
)

// produceCase writes count records in parts calls and reads them back.
func produceCase(ctx context.Context, c Client, p Params) error {
	set, n, parts := p.set(), int(p.num("count")), int(max(1, p.num("parts")))
	for part := range parts {
		from, to := n*part/parts, n*(part+1)/parts
		if err := c.Produce(ctx, p["topic"], p["codec"], p["case"] == "idempotent", set.Range(0, int64(from), to-from)); err != nil {
			return fmt.Errorf("produce: %w", err)
		}
	}
	got, err := c.Read(ctx, p["topic"], 0, -2, n)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	return set.CheckRun(got, 0, 0, n)
}

func startCase(ctx context.Context, c Client, p Params) error {
	got, err := c.Read(ctx, p["topic"], 0, -2, int(p.num("count")))
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return p.set().CheckRun(got, 0, 0, int(p.num("count")))
}

func (p Params) offsets() []int64 {
	var out []int64
	for _, s := range strings.Split(p["offsets"], ",") {
		n, _ := strconv.ParseInt(s, 10, 64)
		out = append(out, n)
	}
	return out
}

// timestampCase asks for half a second before a record, for its exact time, and
// for a time after the last record.
func timestampCase(ctx context.Context, c Client, p Params) error {
	set := p.set()
	for _, want := range p.offsets() {
		for _, before := range []int64{500, 0} {
			got, err := c.OffsetAt(ctx, p["topic"], set.Time(want)-before)
			if err != nil {
				return fmt.Errorf("offset for time: %w", err)
			}
			if got != want {
				return fmt.Errorf("offset for time of record %d less %d ms: %d", want, before, got)
			}
		}
		recs, err := c.Read(ctx, p["topic"], 0, want, 3)
		if err != nil {
			return fmt.Errorf("read from %d: %w", want, err)
		}
		if err := set.CheckRun(recs, 0, want, 3); err != nil {
			return err
		}
	}
	switch got, err := c.OffsetAt(ctx, p["topic"], set.Time(p.num("count"))); {
	case err != nil:
		return fmt.Errorf("offset for a time after the end: %w", err)
	case got != -1:
		return fmt.Errorf("offset for a time after the end: %d, want none", got)
	}
	return nil
}

func midbatchCase(ctx context.Context, c Client, p Params) error {
	for _, from := range p.offsets() {
		recs, err := c.Read(ctx, p["topic"], 0, from, 3)
		if err != nil {
			return fmt.Errorf("read from %d: %w", from, err)
		}
		if err := p.set().CheckRun(recs, 0, from, 3); err != nil {
			return fmt.Errorf("read from %d: %w", from, err)
		}
	}
	return nil
}

// commitCase reads `first` of the records in a group, commits, leaves, and lets
// a second member go on from there to the end.
func commitCase(ctx context.Context, c Client, p Params) error {
	first, count := p.num("first"), p.num("count")
	for _, span := range [][2]int64{{0, first}, {first, count}} {
		if err := consumeSpan(ctx, c, p, span[0], span[1]); err != nil {
			return fmt.Errorf("member from %d: %w", span[0], err)
		}
		got, err := c.Committed(ctx, p["group"], p["topic"])
		switch {
		case errors.Is(err, errNoAPI): // the driver asks the coordinator as well
		case err != nil:
			return fmt.Errorf("fetch committed offset: %w", err)
		case got != span[1]:
			return fmt.Errorf("committed offset %d, want %d", got, span[1])
		}
	}
	return nil
}

func consumeSpan(ctx context.Context, c Client, p Params, from, to int64) error {
	m, err := c.Join(ctx, p["group"], p["topic"], int(to-from))
	if err != nil {
		return err
	}
	var got []record.Record
	for int64(len(got)) < to-from {
		recs, err := m.Poll(ctx)
		if err != nil {
			m.Close()
			return fmt.Errorf("after %d records: %w", len(got), err)
		}
		got = append(got, recs...)
	}
	got = got[:to-from]
	if err := p.set().CheckRun(got, 0, from, int(to-from)); err != nil {
		m.Close()
		return err
	}
	if err := m.Commit(ctx, map[int32]int64{0: to}); err != nil {
		m.Close()
		return fmt.Errorf("commit: %w", err)
	}
	return m.Close()
}

// groupRun is the state of the group case: two members, what each position is.
type groupRun struct {
	c    Client
	p    Params
	next map[int32]int64 // next offset wanted by partition
}

// groupCase: one member has all partitions; two share them; each gets exactly
// the records of its share; when one leaves the other has all again and goes on
// where the first left off.
func groupCase(ctx context.Context, c Client, p Params) error {
	g := &groupRun{c: c, p: p, next: map[int32]int64{}}
	n := int(p.num("partitions"))
	a, err := c.Join(ctx, p["group"], p["topic"], 0)
	if err != nil {
		return err
	}
	closeA := true
	defer func() {
		if closeA {
			a.Close()
		}
	}()
	if err := g.settle(ctx, n, a); err != nil {
		return fmt.Errorf("one member: %w", err)
	}
	b, err := c.Join(ctx, p["group"], p["topic"], 0)
	if err != nil {
		return err
	}
	err = g.settle(ctx, n, a, b)
	if err == nil {
		err = g.exchange(ctx, n, a, b)
	}
	if cerr := b.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("two members: %w", err)
	}
	if err := g.settle(ctx, n, a); err != nil {
		return fmt.Errorf("after one left: %w", err)
	}
	if err := g.exchange(ctx, n, a); err != nil {
		return fmt.Errorf("after one left: %w", err)
	}
	closeA = false
	return a.Close()
}

// settle polls until the members hold equal shares that cover every partition once.
func (g *groupRun) settle(ctx context.Context, n int, members ...Member) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		var all []int32
		even := true
		for _, m := range members {
			recs, err := m.Poll(ctx)
			if err != nil || len(recs) > 0 {
				return fmt.Errorf("poll while settling: %d records, error %v", len(recs), err)
			}
			all = append(all, m.Assignment()...)
			even = even && len(m.Assignment()) == n/len(members)
		}
		slices.Sort(all)
		if even && len(all) == n && len(slices.Compact(all)) == n {
			return nil
		}
		if ctx.Err() != nil {
			var shares []string
			for _, m := range members {
				shares = append(shares, fmt.Sprint(m.Assignment()))
			}
			return fmt.Errorf("shares after 30 s: %s of %d partitions", strings.Join(shares, " and "), n)
		}
	}
}

// exchange writes five records to every partition, lets the members read them
// all, each its own share only and each record once, and commits.
func (g *groupRun) exchange(ctx context.Context, n int, members ...Member) error {
	const each = 5
	set := g.p.set()
	var recs []record.Record
	for part := range int32(n) {
		recs = append(recs, set.Range(part, g.next[part], each)...)
	}
	if err := g.c.Produce(ctx, g.p["topic"], "none", false, recs); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	for got := 0; got < n*each; {
		for i, m := range members {
			recs, err := m.Poll(ctx)
			if err != nil {
				return fmt.Errorf("after %d of %d records: %w", got, n*each, err)
			}
			for _, r := range recs {
				if !slices.Contains(m.Assignment(), r.Partition) {
					return fmt.Errorf("member %d got a record of partition %d, holds %v", i, r.Partition, m.Assignment())
				}
				if r.Offset != g.next[r.Partition] {
					return fmt.Errorf("member %d got %d:%d, want offset %d", i, r.Partition, r.Offset, g.next[r.Partition])
				}
				if err := set.Check(r); err != nil {
					return err
				}
				g.next[r.Partition]++
				got++
			}
		}
	}
	for i, m := range members {
		next := map[int32]int64{}
		for _, part := range m.Assignment() {
			next[part] = g.next[part]
		}
		if err := m.Commit(ctx, next); err != nil {
			return fmt.Errorf("member %d: commit: %w", i, err)
		}
	}
	return nil
}
