package protocol

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// withoutLayout are the requests that have tagged fields or nested structs. Only Fetch comes from clients.
var withoutLayout = map[APIKey]bool{KeyFetch: true, KeyFetchSnapshot: true, KeyBrokerHeartbeat: true,
	KeyUpdateRaftVoter: true, KeyStreamsGroupTopologyDescriptionUpdate: true}

// fill sets every field of v to something random; arrays get up to three elements, tags now and then an entry.
func fill(rng *rand.Rand, v reflect.Value, tags bool) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(rng.IntN(2) == 1)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(rng.Uint64()) >> rng.IntN(64))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(rng.Uint64())
	case reflect.Float64:
		v.SetFloat(rng.Float64())
	case reflect.String:
		v.SetString(string(make([]byte, rng.IntN(3))))
	case reflect.Pointer:
		if rng.IntN(2) == 1 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(rng, v.Elem(), tags)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), rng.IntN(4), 4))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(rng, v.Index(i), tags)
		}
	case reflect.Struct:
		if t, ok := v.Addr().Interface().(*kmsg.Tags); ok {
			if tags && rng.IntN(4) == 0 {
				t.Set(100+rng.Uint32N(1000), []byte("tag"))
			}
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).Name != "Version" || i > 0 {
				fill(rng, v.Field(i), tags)
			}
		}
	}
}

// eachRequest calls f for every key and version that kmsg knows.
func eachRequest(f func(key APIKey, version int16)) {
	for key := APIKey(0); key.Valid(); key++ {
		for v := int16(0); v <= kmsg.RequestForKey(int16(key)).MaxVersion(); v++ {
			f(key, v)
		}
	}
}

func TestWalkAcceptsWhatKmsgWritesAndNothingShorter(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	eachRequest(func(key APIKey, v int16) {
		if withoutLayout[key] {
			if _, err := Walk(key, v, nil); !errors.Is(err, ErrUnsupportedVersion) {
				t.Errorf("%v v%d: got %v", key, v, err)
			}
			return
		}
		for round := range 12 {
			req := kmsg.RequestForKey(int16(key))
			req.SetVersion(v)
			fill(rng, reflect.ValueOf(req).Elem(), req.IsFlexible() && round > 6)
			req.SetVersion(v)
			body := req.AppendTo(nil)
			if _, err := Walk(key, v, body); err != nil {
				t.Errorf("%v v%d: %v\n%x", key, v, err, body)
				return
			}
			got, err := DecodeRequest(&RequestHeader{Key: key, Version: v}, body)
			if err != nil || !bytes.Equal(got.AppendTo(nil), body) {
				t.Errorf("%v v%d: decoded differently, %v", key, v, err)
			}
			longer := append(body[:len(body):len(body)], 1, 0, 0)
			if got, err := DecodeRequest(&RequestHeader{Key: key, Version: v}, longer); err != nil || !bytes.Equal(got.AppendTo(nil), body) {
				t.Errorf("%v v%d: bytes after its end, which Kafka ignores: %v", key, v, err)
			}
			for i := range body {
				if _, err := Walk(key, v, body[:i]); !errors.Is(err, ErrMalformed) {
					t.Errorf("%v v%d: cut at %d of %d: %v", key, v, i, len(body), err)
				}
			}
		}
	})
}

// decodeBounded decodes body and reports whether that took no longer, and allocated no more, than it may, and what it took at least.
// What a body costs it costs each time; a machine that stands still, and what others allocate meanwhile, do not come ten times.
func decodeBounded(key APIKey, v int16, body []byte, most uint64) (ok bool, took time.Duration, bytes uint64) {
	var before, after runtime.MemStats
	took, bytes = time.Hour, math.MaxUint64
	for i := 0; i < 10 && !ok; i++ {
		runtime.ReadMemStats(&before)
		start := time.Now()
		_, _ = DecodeRequest(&RequestHeader{Key: key, Version: v}, body)
		took = min(took, time.Since(start))
		runtime.ReadMemStats(&after)
		bytes = min(bytes, after.TotalAlloc-before.TotalAlloc)
		ok = took <= time.Second && bytes <= most
	}
	return ok, took, bytes
}

// TestHostileBodiesAreBounded sends runs of each small byte, which become counts, lengths and tag counts of all kinds.
func TestHostileBodiesAreBounded(t *testing.T) {
	const size = 1 << 14
	eachRequest(func(key APIKey, v int16) {
		if withoutLayout[key] || v != 0 && v != kmsg.RequestForKey(int16(key)).MaxVersion() {
			return
		}
		_, _ = Walk(key, v, nil) // derive the layout
		for _, unit := range []string{"\x00", "\x01", "\x02", "\x7f", "\xff", "\xff\xff\xff\xff\x0f", "\x00\x01", "\xff\x7f\x00\x00", "\xff\xff\x00"} {
			body := bytes.Repeat([]byte(unit), size/len(unit))
			if ok, took, bytes := decodeBounded(key, v, body, 40*size+decodeCostFree); !ok {
				t.Errorf("%v v%d of %x: %v, %d bytes", key, v, unit, took, bytes)
			}
		}
	})
}

func FuzzDecodeRequest(f *testing.F) {
	rng := rand.New(rand.NewPCG(5, 6))
	eachRequest(func(key APIKey, v int16) {
		req := kmsg.RequestForKey(int16(key))
		req.SetVersion(v)
		fill(rng, reflect.ValueOf(req).Elem(), req.IsFlexible())
		req.SetVersion(v)
		f.Add(int16(key), v, req.AppendTo(nil))
	})
	f.Fuzz(func(t *testing.T, key, v int16, body []byte) {
		cost, err := Walk(APIKey(key), v, body)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnsupportedVersion) {
				t.Errorf("untyped error %v", err)
			}
			return
		}
		if ok, took, allocated := decodeBounded(APIKey(key), v, body, uint64(2*cost+decodeCostFree)); !ok {
			t.Errorf("%d bytes took %v and %d bytes, estimated %d", len(body), took, allocated, cost)
		}
	})
}

func BenchmarkWalkMetadata(b *testing.B) {
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 12
	for range 100 {
		req.Topics = append(req.Topics, kmsg.MetadataRequestTopic{Topic: kmsg.StringPtr("some-topic")})
	}
	body := req.AppendTo(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Walk(KeyMetadata, 12, body); err != nil {
			b.Fatal(err)
		}
	}
}
