package history

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

var (
	p0       = Partition{"t", 0}
	producer = int32(1) // idempotent
	plain    = int32(2)
)

func rec(id int32, seq int64) Record { return Record{id, seq, uint64(id)<<32 | uint64(seq)} }

// story is a history with n records of the idempotent producer, each acked, seen and in want's place at the end.
func story(n int64) (*History, []entry) {
	h := New()
	h.Producer(producer, true)
	h.Producer(plain, false)
	var final []entry
	for i := range n {
		r := rec(producer, h.Sent(p0, producer))
		h.Acked(p0, r, i)
		h.Saw("tail", p0, r, i)
		h.Given("group", p0, i)
		h.HighWatermark("tail", p0, h.Now(), i+1)
		h.LogStart("tail", p0, 0, 0)
		h.Committed("g", p0, i)
		final = append(final, entry{i, r})
	}
	return h, final
}

func (h *History) finish(start int64, final []entry) []Violation {
	for _, e := range final {
		h.Read(p0, e.rec, e.offset)
	}
	end := start
	if n := len(final); n > 0 {
		end = final[n-1].offset + 1
	}
	h.Ended(p0, start, end)
	v, _ := h.Check()
	return v
}

func TestSoundHistory(t *testing.T) {
	h, final := story(100)
	if v := h.finish(0, final); len(v) > 0 {
		t.Error(v)
	}
	h, final = story(100)
	if v := h.finish(40, final[40:]); len(v) > 0 {
		t.Errorf("with the first 40 deleted: %v", v)
	}
	h, final = story(0)
	for i := range int64(3) { // a plain producer may repeat a batch, also without having heard of it
		h.Sent(p0, plain)
		final = append(final, entry{i, rec(plain, i)})
	}
	final = append(final, entry{3, rec(plain, 1)}, entry{4, rec(plain, 2)})
	h.Acked(p0, rec(plain, 1), 3)
	if v := h.finish(0, final); len(v) > 0 {
		t.Errorf("plain producer: %v", v)
	}
}

// TestPlanted plants one fault at a time; the checker must name it.
func TestPlanted(t *testing.T) {
	for _, c := range []struct {
		name  string
		want  Kind
		plant func(h *History, final []entry) []entry
	}{
		{"the last acked record is gone", Lost, func(_ *History, f []entry) []entry { return f[:len(f)-1] }},
		{"everything is gone", Lost, func(_ *History, f []entry) []entry { return nil }},
		{"another record at an acked offset", Lost, func(_ *History, f []entry) []entry {
			f[5].rec.Sum++
			return f
		}},
		{"a partition was not read", Lost, func(h *History, f []entry) []entry {
			h.Sent(Partition{"t", 1}, producer)
			return f
		}},
		{"a seen record is gone", Vanished, func(h *History, f []entry) []entry {
			h.Saw("", p0, rec(producer, h.Sent(p0, producer)), 10)
			return f
		}},
		{"a seen record is another at the end", Changed, func(h *History, f []entry) []entry {
			h.Sent(p0, producer)
			h.Saw("", p0, Record{producer, 10, 1}, 10)
			return append(f, entry{10, Record{producer, 10, 2}})
		}},
		{"a seen record changes between two reads", Changed, func(h *History, f []entry) []entry {
			h.Saw("", p0, Record{producer, 3, 99}, 3)
			return f
		}},
		{"a batch of an idempotent producer twice", Doubled, func(_ *History, f []entry) []entry {
			return append(f, entry{10, rec(producer, 9)})
		}},
		{"two acks for one record", Doubled, func(h *History, f []entry) []entry {
			h.Acked(p0, rec(producer, 9), 9)
			return f
		}},
		{"two unacked records swapped", Reordered, func(h *History, f []entry) []entry {
			h.Sent(p0, producer)
			h.Sent(p0, producer)
			return append(f, entry{10, rec(producer, 11)}, entry{11, rec(producer, 10)})
		}},
		{"a record of an idempotent producer left out", Reordered, func(h *History, f []entry) []entry {
			h.Sent(p0, producer)
			h.Sent(p0, producer)
			return append(f, entry{10, rec(producer, 11)})
		}},
		{"a plain producer's records swapped", Reordered, func(h *History, f []entry) []entry {
			h.Sent(p0, plain)
			h.Sent(p0, plain)
			return append(f, entry{10, rec(plain, 1)}, entry{11, rec(plain, 0)})
		}},
		{"acks in another order", Reordered, func(h *History, f []entry) []entry {
			h.Sent(p0, plain)
			h.Sent(p0, plain)
			h.Acked(p0, rec(plain, 0), 11)
			h.Acked(p0, rec(plain, 1), 10)
			return append(f, entry{10, rec(plain, 0)}, entry{11, rec(plain, 1)})
		}},
		{"an offset left out", Gap, func(h *History, f []entry) []entry {
			h.Sent(p0, producer)
			return append(f, entry{11, rec(producer, 10)})
		}},
		{"an offset twice", Gap, func(h *History, f []entry) []entry {
			h.Sent(p0, producer)
			return append(f, entry{9, rec(producer, 10)})
		}},
		{"a consumer skips", Gap, func(h *History, f []entry) []entry {
			h.Sent(p0, producer)
			h.Sent(p0, producer)
			h.Saw("tail", p0, rec(producer, 11), 11)
			return append(f, entry{10, rec(producer, 10)}, entry{11, rec(producer, 11)})
		}},
		{"a group passes over a record", Gap, func(h *History, f []entry) []entry {
			for _, e := range f {
				if e.offset != 4 {
					h.Given("g", p0, e.offset)
				}
			}
			return f
		}},
		{"a record that nobody sent", Invented, func(_ *History, f []entry) []entry {
			return append(f, entry{10, rec(producer, 10)})
		}},
		{"high watermark", Moved, func(h *History, f []entry) []entry {
			h.HighWatermark("tail", p0, 0, 9)
			return f
		}},
		{"high watermark in the end", Moved, func(h *History, f []entry) []entry {
			h.HighWatermark("tail", p0, 0, 11)
			return f
		}},
		{"log start", Moved, func(h *History, f []entry) []entry {
			h.LogStart("tail", p0, 0, 5)
			h.LogStart("tail", p0, 0, 4)
			return f
		}},
		{"committed offset", Moved, func(h *History, f []entry) []entry {
			h.CommittedAfter("g", p0, h.CommittedFloor("g", p0), 8)
			return f
		}},
		{"committed offset lost", Moved, func(h *History, f []entry) []entry {
			h.CommittedAfter("g", p0, h.CommittedFloor("g", p0), -1)
			return f
		}},
		{"last stable offset", Moved, func(h *History, f []entry) []entry {
			h.LastStable("tail", p0, 0, 9)
			h.LastStable("tail", p0, 0, 8)
			return f
		}},
		{"high watermark below what another one was told", Stale, func(h *History, f []entry) []entry {
			h.HighWatermark("one", p0, 0, 20)
			h.HighWatermark("other", p0, h.Now(), 19)
			return f
		}},
		{"high watermark below what a consumer saw", Stale, func(h *History, f []entry) []entry {
			h.Saw("", p0, rec(producer, h.Sent(p0, producer)), 10)
			h.HighWatermark("other", p0, h.Now(), 10)
			return append(f, entry{10, rec(producer, 10)})
		}},
		{"log start below what another one was told", Stale, func(h *History, f []entry) []entry {
			h.LogStart("one", p0, 0, 5)
			h.LogStart("other", p0, h.Now(), 4)
			return f
		}},
		{"last stable offset below what another one was told", Stale, func(h *History, f []entry) []entry {
			h.LastStable("one", p0, 0, 5)
			h.LastStable("other", p0, h.Now(), 4)
			return f
		}},
		{"high watermark below an ack", Early, func(h *History, f []entry) []entry {
			h.HighWatermark("other", p0, h.Now(), 9)
			return f
		}},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			h, final := story(10)
			got := h.finish(0, c.plant(h, final))
			for _, v := range got {
				if v.Kind == c.want {
					return
				}
			}
			t.Errorf("want %q, got %v", c.want, got)
		})
	}
}

func TestViolationsAreBounded(t *testing.T) {
	h := New()
	for range 10 * maxViolations {
		h.Fail(Refused, p0, "no")
	}
	if v, _ := h.Check(); len(v) > maxViolations+10 {
		t.Errorf("%d violations", len(v))
	}
}

// TestTolerated: what is tolerated is counted, and nothing else is let off.
func TestTolerated(t *testing.T) {
	h, final := story(10)
	h.Tolerate(Stale, Early)
	h.HighWatermark("other", p0, h.Now(), 9)
	h.LogStart("one", p0, 0, 5)
	h.LogStart("other", p0, h.Now(), 4)
	for _, e := range final[:9] {
		h.Read(p0, e.rec, e.offset)
	}
	h.Ended(p0, 0, 9)
	found, totals := h.Check()
	if totals.Tolerated[Stale] != 1 || totals.Tolerated[Early] != 1 {
		t.Errorf("tolerated: %v", totals.Tolerated)
	}
	for _, v := range found {
		if v.Kind == Lost {
			return
		}
	}
	t.Errorf("a lost record was let off: %v", found)
}

func TestTrace(t *testing.T) {
	h := New()
	h.Trace(Op{Name: "unheard"})
	var out strings.Builder
	h.TraceTo(&out)
	h.Trace(Op{Name: "produce", Client: "1", Partition: p0, Seq: 4, Value: 9, Called: time.Now()})
	if err := h.Flush(); err != nil {
		t.Fatal(err)
	}
	var op Op
	if err := json.Unmarshal([]byte(out.String()), &op); err != nil || op.Value != 9 || op.Partition != p0 || op.Returned.Before(op.Called) {
		t.Errorf("%q: %+v, %v", out.String(), op, err)
	}
}
