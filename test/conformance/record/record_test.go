package record

import (
	"slices"
	"testing"
)

// Every single field that a broker could spoil must be seen by Check and CheckRun.
func TestCheckSeesEachField(t *testing.T) {
	s := Set{Salt: "salt", TimeBase: 1_000_000}
	spoil := map[string]func(*Record){
		"key":              func(r *Record) { r.Key = []byte("other") },
		"null key":         func(r *Record) { r.Key = nil },
		"value":            func(r *Record) { r.Value = append(slices.Clone(r.Value), 'x') },
		"null value":       func(r *Record) { r.Value = nil },
		"timestamp":        func(r *Record) { r.Timestamp++ },
		"header value":     func(r *Record) { r.Headers[1].Value = []byte{0xff} },
		"header name":      func(r *Record) { r.Headers[2].Key = "" },
		"header missing":   func(r *Record) { r.Headers = r.Headers[:2] },
		"header order":     func(r *Record) { slices.Reverse(r.Headers) },
		"offset":           func(r *Record) { r.Offset++ },
		"partition":        func(r *Record) { r.Partition++ },
		"header value nil": func(r *Record) { r.Headers[0].Value = nil },
	}
	for name, f := range spoil {
		r := s.At(2, 5)
		if err := s.Check(r); err != nil {
			t.Fatalf("untouched record: %v", err)
		}
		f(&r)
		if s.Check(r) == nil {
			t.Errorf("%s: spoiled record passed", name)
		}
	}
	if r := s.At(0, 9); r.Value != nil {
		t.Errorf("record 9 has value %q, want a tombstone", r.Value)
	}
	empty := s.At(0, 9)
	empty.Value = []byte{}
	if s.Check(empty) == nil {
		t.Error("an empty value passed for a null one")
	}
}

func TestCheckRunSeesGapsAndDoubles(t *testing.T) {
	s := Set{Salt: "salt", TimeBase: 5}
	good := s.Range(1, 10, 20)
	if err := s.CheckRun(good, 1, 10, 20); err != nil {
		t.Fatal(err)
	}
	bad := map[string][]Record{
		"short":  good[:19],
		"late":   good[1:],
		"gap":    slices.Delete(slices.Clone(good), 7, 8),
		"double": slices.Insert(slices.Clone(good), 7, good[7]),
		"order":  append(slices.Clone(good[1:2]), append(slices.Clone(good[:1]), good[2:]...)...),
		"none":   nil,
	}
	for name, run := range bad {
		if s.CheckRun(run, 1, 10, 20) == nil {
			t.Errorf("%s: passed", name)
		}
	}
}
