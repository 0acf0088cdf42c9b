package protocol

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Limits of what one body may decode into. Honest requests stay far below: the dearest ones, arrays of names of one
// letter, cost about 20 bytes per byte.
const (
	decodeCostPerByte = 32
	decodeCostFree    = 64 << 10
	// tagCost is roughly what kmsg spends on a section of unknown tags, a Go map, and tagEntryCost on each entry.
	tagCost      = 320
	tagEntryCost = 64
)

// Walk checks that body is a well-formed request of that key and version, as far as lengths, counts and tags go,
// without allocating, in time proportional to its length. It returns about how many bytes of memory decoding it will
// take. Errors match ErrMalformed or ErrUnsupportedVersion.
//
// There is no layout, and so an ErrUnsupportedVersion, for the few requests with tagged fields or nested structs: Fetch,
// which has its own decoder, and four that no client sends.
func Walk(key APIKey, version int16, body []byte) (cost int, err error) {
	s, err := requestShape(key, version)
	if err != nil {
		return 0, err
	}
	w := walker{r: NewReader(body, s.flexible), cost: s.goSize}
	w.walk(s)
	if limit := decodeCostFree + decodeCostPerByte*len(body); w.cost > limit {
		w.r.Fail("decoded form exceeds the limit, bytes", int64(w.cost))
	}
	if w.r.Ok() {
		return w.cost, nil
	}
	return 0, w.r.Err(key.String()+" request", version)
}

// DecodeRequest walks the body and then decodes it with kmsg. Bytes after the end are ignored, as Kafka does
// (librdkafka sends some). Strings
// of the result are copies; byte fields alias body and must be copied by whoever keeps them.
func DecodeRequest(h *RequestHeader, body []byte) (kmsg.Request, error) {
	if _, err := Walk(h.Key, h.Version, body); err != nil {
		return nil, err
	}
	req := kmsg.RequestForKey(int16(h.Key))
	req.SetVersion(h.Version)
	if err := req.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("decode %s request v%d: %w: %w", h.Key, h.Version, ErrMalformed, err)
	}
	return req, nil
}

type walker struct {
	r    Reader
	cost int
}

func (w *walker) walk(s *shape) {
	r := &w.r
	for i := range s.parts {
		p := &s.parts[i]
		switch p.kind {
		case partFixed:
			r.take(p.size)
		case partString:
			w.string()
		case partBytes:
			if n := r.bytesLen(); n > 0 {
				r.take(n)
			}
		case partFixedArr:
			if n := r.NullableArrayLen(p.size); n > 0 {
				r.take(n * p.size) // at most Len, as NullableArrayLen has checked
				w.cost += n * p.size
			}
		case partStrings:
			n := r.NullableArrayLen(p.elemMin(s.flexible))
			w.cost += max(n, 0) * 16
			for ; n > 0 && r.Ok(); n-- {
				w.string()
			}
		case partStructs:
			n := r.NullableArrayLen(p.elemMin(s.flexible))
			w.cost += max(n, 0) * p.sub.goSize
			for ; n > 0 && r.Ok(); n-- {
				w.walk(p.sub)
			}
		case partOptional:
			if r.Int8() >= 0 {
				w.cost += p.sub.goSize
				w.walk(p.sub)
			}
		}
	}
	if n := r.TagCount(); n > 0 {
		w.cost += tagCost + n*tagEntryCost
		for ; n > 0 && r.Ok(); n-- {
			r.Tag()
		}
	}
}

// string walks over a string and charges for the copy, with the header that a pointer to a string takes.
func (w *walker) string() {
	if n := w.r.stringLen(); n > 0 {
		w.r.take(n)
		w.cost += n + 16
	}
}

// elemMin returns the fewest bytes that an element of the array takes.
func (p *part) elemMin(flexible bool) int {
	switch {
	case p.kind == partStructs:
		return p.sub.min
	case flexible:
		return 1
	default:
		return 2
	}
}
