package protocol

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestFlexibleVersionsAreThoseOfKmsg(t *testing.T) {
	for k := APIKey(0); k.Valid(); k++ {
		r := kmsg.RequestForKey(int16(k))
		if r == nil {
			t.Errorf("%v: kmsg does not know it", k)
			continue
		}
		for v := int16(0); v <= r.MaxVersion(); v++ {
			if r.SetVersion(v); r.IsFlexible() != k.Flexible(v) {
				t.Errorf("%v v%d: flexible is %v", k, v, k.Flexible(v))
			}
		}
		if got, want := k.String(), kmsg.NameForKey(int16(k)); !strings.EqualFold(got, want) && k != KeyAlterPartitionReassignments {
			t.Errorf("key %d is %s, kmsg says %s", k, got, want)
		}
	}
}

func TestRequestHeader(t *testing.T) {
	tests := []struct {
		name string
		in   []byte
		want RequestHeader
		body string
		err  error
	}{
		{name: "v0", in: []byte("\x00\x07\x00\x00\x00\x00\x00\x05rest"), want: RequestHeader{Key: 7, CorrelationID: 5, ClientIDNull: true}, body: "rest"},
		{name: "v1", in: []byte("\x00\x00\x00\x08\x00\x00\x00\x05\x00\x02meB"), want: RequestHeader{Version: 8, CorrelationID: 5, ClientID: "me"}, body: "B"},
		{name: "v1 null", in: []byte("\x00\x00\x00\x08\x00\x00\x00\x05\xff\xff"), want: RequestHeader{Version: 8, CorrelationID: 5, ClientIDNull: true}},
		{name: "v2", in: []byte("\x00\x00\x00\x09\x00\x00\x00\x05\x00\x02me\x00B"), want: RequestHeader{Version: 9, CorrelationID: 5, ClientID: "me"}, body: "B"},
		{name: "v2 tags", in: []byte("\x00\x00\x00\x09\x00\x00\x00\x05\x00\x00\x01\x05\x02xyB"), want: RequestHeader{Version: 9, CorrelationID: 5}, body: "B"},
		{name: "api versions of the future", in: []byte("\x00\x12\x7f\x00\x00\x00\x00\x05\x00\x00\x00B"), want: RequestHeader{Key: 18, Version: 0x7f00, CorrelationID: 5}, body: "B"},
		{name: "tag bomb", in: []byte("\x00\x00\x00\x09\x00\x00\x00\x05\x00\x00\xff\xff\xff\xff\x0f"), want: RequestHeader{Version: 9, CorrelationID: 5}, err: ErrMalformed},
		{name: "long client id", in: []byte("\x00\x00\x00\x08\x00\x00\x00\x05\x7f\xff"), want: RequestHeader{Version: 8, CorrelationID: 5, ClientIDNull: true}, err: ErrMalformed},
		{name: "bad length", in: []byte("\x00\x00\x00\x08\x00\x00\x00\x05\xff\xfe"), want: RequestHeader{Version: 8, CorrelationID: 5, ClientIDNull: true}, err: ErrMalformed},
		{name: "short", in: []byte("\x00\x00\x00\x08\x00"), want: RequestHeader{Version: 8}, err: ErrMalformed},
		{name: "unknown key", in: []byte("\x47\x45\x54\x20\x2f\x20\x48\x54"), want: RequestHeader{Key: 0x4745, Version: 0x5420, CorrelationID: 0x2f204854}, err: ErrUnsupportedVersion},
	}
	for _, tt := range tests {
		var h RequestHeader
		body, err := h.Parse(tt.in)
		if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) || h != tt.want || string(body) != tt.body {
			t.Errorf("%s: got %+v, body %q, %v", tt.name, h, body, err)
		}
		if err == nil && !strings.Contains(tt.name, "tags") {
			if got := append(h.AppendTo(nil), body...); !bytes.Equal(got, tt.in) {
				t.Errorf("%s: appended %x, want %x", tt.name, got, tt.in)
			}
		}
	}
}

func TestResponseHeader(t *testing.T) {
	for _, tt := range []struct {
		key     APIKey
		version int16
		want    string
	}{{KeyProduce, 8, "\x00\x00\x01\x02"}, {KeyProduce, 9, "\x00\x00\x01\x02\x00"}, {KeyApiVersions, 4, "\x00\x00\x01\x02"}} {
		if got := AppendResponseHeader(nil, tt.key, tt.version, 0x102); string(got) != tt.want {
			t.Errorf("%v v%d: got %x", tt.key, tt.version, got)
		}
	}
}

func TestReadFrameSize(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want int
		err  error
	}{
		{"\x00\x00\x00\x03abc", 3, nil},
		{"\x00\x00\x00\x00", 0, nil},
		{"\x00\x00\x00\x65", 0, ErrFrameSize},
		{"\xff\xff\xff\xff", 0, ErrFrameSize},
		{"GET / HTTP/1.1", 0, ErrFrameSize},
		{"", 0, io.EOF},
		{"\x00\x00", 0, io.ErrUnexpectedEOF},
	} {
		r := bufio.NewReader(strings.NewReader(tt.in))
		got, err := ReadFrameSize(r, 100)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%q: got %d, %v", tt.in, got, err)
		}
		if err == nil {
			if err := ReadFrame(r, make([]byte, got)); err != nil {
				t.Errorf("%q: body: %v", tt.in, err)
			}
			if err := ReadFrame(r, make([]byte, 1)); err != io.ErrUnexpectedEOF {
				t.Errorf("%q: after the body: %v", tt.in, err)
			}
		}
	}
}
