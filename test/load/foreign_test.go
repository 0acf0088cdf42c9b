package load

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/skeinmq/skein/test/history"
)

// TestForeignLines: what a worker says reaches the history, and a lie of each kind is found.
func TestForeignLines(t *testing.T) {
	p := history.Partition{Topic: "t", Index: 0}
	for _, c := range []struct {
		name string
		lie  func(lines []string) []string
		want history.Kind
	}{
		{"the truth", func(l []string) []string { return l }, ""},
		{"an ack at another offset", func(l []string) []string {
			l[3] = strings.Replace(l[3], "[0,0,3,", "[0,0,4,", 1)
			return l
		}, history.Lost},
		{"an ack of what is not there", func(l []string) []string {
			return append(l, `{"op":"produce","called":1,"returned":2,"at":[0,0,10,100,10,77]}`)
		}, history.Lost},
		{"an ack that never was", func(l []string) []string { return append(l[:9], l[10:]...) }, history.Invented},
		{"a refusal", func(l []string) []string {
			return append(l, `{"op":"produce","called":1,"returned":2,"at":[0,0,0,100,9,77],"error":"no"}`)
		}, history.Refused},
		{"a record that the tail was not given", func(l []string) []string { return append(l[:14], l[15:]...) }, history.Gap},
		{"a record that the group was not given", func(l []string) []string { return append(l[:24], l[25:]...) }, history.Gap},
		{"a spoilt record", func(l []string) []string {
			return append(l, `{"op":"poll","called":1,"returned":2,"spoilt":[[0,0,3]]}`)
		}, history.Changed},
		{"offset out of range", func(l []string) []string {
			return append(l, `{"op":"vanished","called":1,"returned":2,"error":"offset out of range"}`)
		}, history.Vanished},
		{"an end that moves back", func(l []string) []string {
			return append(l, `{"op":"end","called":1,"returned":2,"marks":[[0,0,9]]}`, `{"op":"end","called":1,"returned":2,"marks":[[0,0,8]]}`)
		}, history.Moved},
		{"a commit that is not there", func(l []string) []string {
			return append(l, `{"op":"commit","called":1,"returned":2,"marks":[[0,0,11]]}`)
		}, history.Moved},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			h := history.New()
			l := &Load{Topics: []Topic{{"t", 1}}, H: h}
			h.Producer(FirstForeign, true)
			produce, tail, member := newWorker(l, "x produce", RoleProduce, FirstForeign), newWorker(l, "x tail", RoleTail, 0), newWorker(l, "x member", RoleMember, 0)
			var recs []history.Record
			var lines []string
			rng := rand.New(rand.NewPCG(1, 2))
			for i := range int64(10) {
				rec, err := readContent(newContent(rng, FirstForeign, i, 30))
				if err != nil {
					t.Fatal(err)
				}
				recs = append(recs, rec)
				lines = append(lines, fmt.Sprintf(`{"op":"produce","called":1,"returned":2,"at":[0,0,%d,%d,%d,%d]}`, i, rec.Producer, rec.Seq, rec.Sum))
			}
			for _, more := range []int{0, 1} {
				for i, rec := range recs {
					lines = append(lines, fmt.Sprintf(`{"op":"poll","called":1,"returned":2,"assigned":%d,"records":[[0,0,%d,%d,%d,%d]]}`, more, i, rec.Producer, rec.Seq, rec.Sum))
				}
			}
			for i, line := range c.lie(lines) {
				w := member
				switch {
				case strings.Contains(line, "produce"):
					w = produce
				case i < 20 && !strings.Contains(line, `"assigned":1`) || strings.Contains(line, "end"):
					w = tail
				}
				if err := w.note([]byte(line)); err != nil {
					t.Fatal(err)
				}
			}
			h.CommittedAfter(ForeignGroup, p, h.CommittedFloor(ForeignGroup, p), 10)
			for i, rec := range recs {
				h.Read(p, rec, int64(i))
			}
			h.Ended(p, 0, 10)
			found, _ := h.Check()
			for _, v := range found {
				if v.Kind == c.want {
					return
				}
			}
			if c.want != "" || len(found) > 0 {
				t.Errorf("want %q, found %v", c.want, found)
			}
		})
	}
}

// TestForeignNonsense: lines that no worker writes end the run, not the process.
func TestForeignNonsense(t *testing.T) {
	w := newWorker(&Load{Topics: []Topic{{"t", 1}}, H: history.New()}, "x", RoleTail, 0)
	for _, line := range []string{"", "{}", "null", `{"op":"dance"}`, `{"op":"poll","records":[[1,0,0,0,0,0]]}`, `{"op":"poll","records":[[0,1,0,0,0,0]]}`,
		`{"op":"produce","at":[0,18446744073709551615,0,0,0,0]}`, `{"op":"end","marks":[[-1,0,0]]}`, `{"op":"poll","more":1}`} {
		if err := w.note([]byte(line)); err == nil {
			t.Errorf("%s: taken", line)
		}
	}
}
