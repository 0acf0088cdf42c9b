package queuemapper

import (
	"encoding/hex"
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
)

var rewrite = flag.Bool("rewrite", false, "write golden files anew")

// samples has one value of each kind with every field in use.
func samples() map[string][]byte {
	orders := ident.Topic{0: 0x0a, 15: 0x01}
	audit := ident.Topic{0: 0x0b, 15: 0x02}
	part := func(t ident.Topic, i int32) ident.Partition { return ident.Partition{Topic: t, Index: i} }
	return map[string][]byte{
		"cluster": encodeCluster(Cluster{ID: "abcdefghijklmnopqrstuv", Format: 1, Groups: 64}),
		"topic": encodeTopic(&Topic{
			ID: orders, ReplicationFactor: 3, Configs: map[string]string{"retention.ms": "1000", "cleanup.policy": "compact"},
			Partitions: []Placement{{{Group: 5}}, {{Group: 6, Last: 4}, {Group: 300, From: 70000, First: 9}}, {{Group: 0}}},
		}),
		"topic-plain": encodeTopic(&Topic{ID: audit, ReplicationFactor: -1, Partitions: []Placement{}}),
		"group": encodeGroup(&Group{
			Starts: map[ident.Partition]ident.Offset{part(orders, 0): 10},
			Generations: []Generation{
				{
					Epoch: 3, Log: logID(0xaa), Frame: ident.Frame{Epoch: 2, Position: 8192}, Sealed: true,
					Ends: map[ident.Partition]ident.Offset{part(orders, 0): 812, part(orders, 7): 1 << 40, part(audit, 2): 1},
					Lost: map[ident.Partition][]Range{part(orders, 7): {{From: 100, To: 200}, {From: 300, To: 301}}},
				},
				{Epoch: 4, Log: logID(0xbb), Frame: ident.Frame{Epoch: 1, Position: 4096}},
			},
		}),
		"group-gap": encodeGroup(&Group{
			Generations: []Generation{
				{
					Epoch: 3, Log: logID(0xaa), Frame: ident.Frame{Epoch: 2, Position: 8192}, Sealed: true, Gap: true,
					Ends: map[ident.Partition]ident.Offset{part(orders, 0): 1 << 24},
				},
				{Epoch: 4, Log: logID(0xbb), Frame: ident.Frame{Epoch: 1, Position: 4096}, Ceiling: 1 << 25},
			},
		}),
		"group-empty": encodeGroup(&Group{}),
		"log": encodeLog(&Log{
			Host: 2, Epoch: 258, State: LogSealed, Witnesses: []Witness{{Broker: 1, Incarnation: 1 << 40}, {Broker: 3, Incarnation: 2}},
		}, [8]byte{1, 2, 3, 4, 5, 6, 7, 8}),
		"broker":      encodeBroker(&Broker{Incarnation: 77, Host: "h", Port: 9092, Internal: "h:1", Rack: "r", Roles: []string{"broker", "controller"}}),
		"controller":  encodeController(Controller{Term: 300, Broker: 2}),
		"level":       encodeLevel(2),
		"configs":     encodeConfigs(map[string]string{"a": "1", "b": ""}),
		"incarnation": encodeIncarnation(),
	}
}

// decode reads a value by the kind in its first byte.
func decode(v []byte) (any, error) {
	if len(v) == 0 {
		return decodeCluster(v)
	}
	switch v[0] {
	case kindLevel:
		return decodeLevel(v)
	case kindController:
		return decodeController(v)
	case kindTopic:
		return decodeTopic("t", v, 1)
	case kindGroup:
		return decodeGroup(1, v, 1, nil)
	case kindLog:
		return decodeLog(ident.Log{}, v, 1)
	case kindBroker:
		return decodeBroker(1, v)
	case kindIncarnation:
		r := open(kindIncarnation, v)
		return incarnationValue{}, r.done()
	case kindConfigs:
		return decodeConfigs(v)
	}
	return decodeCluster(v)
}

// TestGoldenBytes: a change here is a format change. docs/format/map.md explains the bytes.
func TestGoldenBytes(t *testing.T) {
	file := filepath.Join("testdata", "golden", "values.txt")
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(samples())) {
		b.WriteString(name + " " + hex.EncodeToString(samples()[name]) + "\n")
	}
	if *rewrite {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// incarnationValue stands for the body that an incarnation's record does not have.
type incarnationValue struct{}

// encode is the inverse of decode.
func encode(v any) []byte {
	switch v := v.(type) {
	case Cluster:
		return encodeCluster(v)
	case *Topic:
		return encodeTopic(v)
	case *Group:
		v.raw = nil
		return encodeGroup(v)
	case *Broker:
		return encodeBroker(v)
	case Level:
		return encodeLevel(v)
	case Controller:
		return encodeController(v)
	case incarnationValue:
		return encodeIncarnation()
	case map[string]string:
		return encodeConfigs(v)
	}
	return nil
}

func TestRoundTrip(t *testing.T) {
	for name, v := range samples() {
		got, err := decode(v)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if l, ok := got.(*Log); ok {
			if again := encodeLog(l, logNonce(v)); !slices.Equal(again, v) {
				t.Errorf("%s: %x, want %x", name, again, v)
			}
			continue
		}
		if again := encode(got); !slices.Equal(again, v) {
			t.Errorf("%s: %x, want %x", name, again, v)
		}
	}
}

// TestDamage: every flipped bit and every cut is noticed, and a newer version says so.
func TestDamage(t *testing.T) {
	for name, v := range samples() {
		for bit := range len(v) * 8 {
			bad := slices.Clone(v)
			bad[bit/8] ^= 1 << (bit % 8)
			if got, err := decode(bad); err == nil {
				t.Errorf("%s: bit %d flipped: %+v", name, bit, got)
			}
		}
		for n := range v {
			if _, err := decode(v[:n]); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: cut at %d: %v", name, n, err)
			}
		}
		newer := slices.Clone(v)
		newer[1]++
		if _, err := decode(newer); !errors.Is(err, ErrVersion) || errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: newer version: %v", name, err)
		}
	}
}

// TestSealedGenerationsAreShared: a record's tables are decoded once, however often it grows.
func TestSealedGenerationsAreShared(t *testing.T) {
	v := samples()["group"]
	a, err := decodeGroup(1, v, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := decodeGroup(1, v, 2, a)
	if err != nil {
		t.Fatal(err)
	}
	if reflect.ValueOf(a.Generations[0].Ends).Pointer() != reflect.ValueOf(b.Generations[0].Ends).Pointer() {
		t.Error("ends were decoded again")
	}
}

func TestLogGuard(t *testing.T) {
	value := func(state LogState, epoch ident.LogEpoch) string {
		return string(encodeLog(&Log{State: state, Epoch: epoch, Host: 255}, [8]byte{255, 255}))
	}
	for _, epoch := range []ident.LogEpoch{1, 2, 255, 256, 1 << 40} {
		above, below := logGuard(LogOpen, epoch)
		in := func(v string) bool { return v > string(above) && v < string(below) }
		if !in(value(LogOpen, epoch)) {
			t.Errorf("epoch %d is not in its own guard", epoch)
		}
		if in(value(LogSealed, epoch)) || in(value(LogOpen, epoch+1)) || epoch > 1 && in(value(LogOpen, epoch-1)) {
			t.Errorf("epoch %d: the guard lets others in", epoch)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range samples() {
		f.Add(v[:len(v)-crcSize])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		v := finish(slices.Clone(body)) // past the checksum, or nothing would be
		got, err := decode(v)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Errorf("untyped error: %v", err)
			}
			return
		}
		if b := encode(got); b != nil {
			again, err := decode(b)
			if err != nil {
				t.Fatalf("encoded %+v anew: %v", got, err)
			}
			if !slices.Equal(encode(again), b) {
				t.Errorf("not stable: %+v", got)
			}
		}
	})
}
