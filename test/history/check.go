package history

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Check compares everything and returns the violations, those that were found on the way first, and the totals.
func (h *History) Check() ([]Violation, Totals) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var t Totals
	order := slices.SortedFunc(maps.Keys(h.parts), func(a, b Partition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Index, b.Index))
	})
	for _, p := range order {
		x := h.parts[p]
		for _, n := range x.sent {
			t.Sent += n
		}
		t.Acked += int64(len(x.acked))
		t.Read += int64(len(x.final))
		for _, s := range x.seen {
			if s.some {
				t.Seen++
			}
		}
		if !x.ended {
			h.report(Lost, p, "it was never read to its end")
			continue
		}
		h.checkOffsets(p, x)
		h.checkAcked(p, x)
		h.checkSeen(p, x)
		h.checkGiven(p, x)
		t.Doubles += h.checkProducers(p, x)
		h.checkAckOrder(p, x)
	}
	t.Tolerated = maps.Clone(h.tolerated)
	out := slices.Clone(h.found)
	if h.dropped > 0 {
		out = append(out, Violation{Text: fmt.Sprintf("and %d more", h.dropped), Found: time.Now()})
	}
	return out, t
}

// checkOffsets: the read goes from the log start to the high watermark, each offset once.
func (h *History) checkOffsets(p Partition, x *partition) {
	want := x.start
	for _, e := range x.final {
		if e.offset != want {
			h.report(Gap, p, "after offset %d comes %d", want-1, e.offset)
		}
		want = e.offset + 1
	}
	if want != x.end {
		h.report(Gap, p, "the read ends at %d, the high watermark is %d", want, x.end)
	}
	for what, value := range x.marks {
		if strings.HasPrefix(what, highMark) && x.end < value {
			h.report(Moved, p, "%s was %d, in the end it is %d", what, value, x.end)
		}
	}
}

func (x *partition) at(offset int64) (Record, bool) {
	i, ok := slices.BinarySearchFunc(x.final, offset, func(e entry, o int64) int { return cmp.Compare(e.offset, o) })
	if !ok {
		return Record{}, false
	}
	return x.final[i].rec, true
}

func (h *History) checkAcked(p Partition, x *partition) {
	for _, a := range x.acked {
		if a.offset < x.start {
			continue // retention or DeleteRecords
		}
		if got, ok := x.at(a.offset); !ok {
			h.report(Lost, p, "%v was acked at %d; there is nothing", a.rec, a.offset)
		} else if got != a.rec {
			h.report(Lost, p, "%v was acked at %d; there is %v", a.rec, a.offset, got)
		}
	}
}

func (h *History) checkSeen(p Partition, x *partition) {
	for o, s := range x.seen {
		offset := int64(o)
		if !s.some || offset < x.start {
			continue
		}
		if got, ok := x.at(offset); !ok {
			h.report(Vanished, p, "a consumer saw %v at %d; there is nothing", s.rec, offset)
		} else if got != s.rec {
			h.report(Changed, p, "a consumer saw %v at %d; there is %v", s.rec, offset, got)
		}
	}
}

// checkGiven: no group has passed over a record.
func (h *History) checkGiven(p Partition, x *partition) {
	for group, list := range x.given {
		for o := x.start; o < int64(len(list)); o++ {
			if !list[o] {
				h.report(Gap, p, "%s was given records up to %d, but nobody of it the one at %d", group, len(list)-1, o)
				break
			}
		}
	}
}

// checkProducers: each record was sent; first occurrences are in the order of sending, and of an idempotent producer
// there are no others and none is left out. It returns the doubles of the other producers.
func (h *History) checkProducers(p Partition, x *partition) (doubles int64) {
	next := make(map[int32]int64)
	first := make(map[int32]bool)
	for _, e := range x.final {
		id := e.rec.Producer
		if e.rec.Seq < 0 || e.rec.Seq >= x.sent[id] {
			h.report(Invented, p, "%v at %d: of %d that were sent", e.rec, e.offset, x.sent[id])
			continue
		}
		want := next[id]
		if !first[id] && x.start > 0 {
			want = e.rec.Seq // what was before has been deleted
		}
		first[id] = true
		switch {
		case e.rec.Seq == want:
			next[id] = want + 1
		case e.rec.Seq < want && h.idempotent[id]:
			h.report(Doubled, p, "%v at %d again, after #%d", e.rec, e.offset, want-1)
		case e.rec.Seq < want:
			doubles++
		default:
			h.report(Reordered, p, "%v at %d comes before #%d", e.rec, e.offset, want)
			next[id] = e.rec.Seq + 1
		}
	}
	return doubles
}

// checkAckOrder: the offsets that a producer was told rise with its records.
func (h *History) checkAckOrder(p Partition, x *partition) {
	byProducer := make(map[int32][]ack)
	for _, a := range x.acked {
		byProducer[a.rec.Producer] = append(byProducer[a.rec.Producer], a)
	}
	for id, acks := range byProducer {
		slices.SortFunc(acks, func(a, b ack) int { return cmp.Compare(a.rec.Seq, b.rec.Seq) })
		for i := 1; i < len(acks); i++ {
			if acks[i].rec.Seq == acks[i-1].rec.Seq {
				h.report(Doubled, p, "producer %d was told twice of #%d: %d and %d", id, acks[i].rec.Seq, acks[i-1].offset, acks[i].offset)
			} else if acks[i].offset <= acks[i-1].offset {
				h.report(Reordered, p, "producer %d was told %d for #%d and %d for #%d", id,
					acks[i-1].offset, acks[i-1].rec.Seq, acks[i].offset, acks[i].rec.Seq)
			}
		}
	}
}
