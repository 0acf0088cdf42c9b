package protocol

import (
	"errors"
	"testing"
)

// typed fails the test if err is of a kind that callers do not expect.
func typed(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnsupportedVersion) {
		t.Errorf("untyped error %v", err)
	}
}

func FuzzRequestHeader(f *testing.F) {
	for _, h := range []RequestHeader{{Key: KeyProduce, Version: 8, ClientID: "me"}, {Key: KeyProduce, Version: 9, ClientIDNull: true}, {Key: KeyControlledShutdown}} {
		f.Add(h.AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var h RequestHeader
		body, err := h.Parse(b)
		typed(t, err)
		if err == nil && len(body) > len(b) {
			t.Errorf("body of %d bytes in a frame of %d", len(body), len(b))
		}
	})
}

func FuzzProduceRequest(f *testing.F) {
	for v := int16(0); v <= ProduceMaxVersion; v++ {
		f.Add(v, kmsgProduce(v, 2, 2, []byte("records")))
	}
	f.Fuzz(func(t *testing.T, v int16, b []byte) {
		var q ProduceRequest
		typed(t, q.Decode(b, v))
		partitions := 0
		for _, topic := range q.Topics {
			partitions += len(topic.Partitions)
		}
		if 3*len(q.Topics)+6*partitions > len(b)+9 { // the element that failed may be there
			t.Errorf("%d bytes decoded into %d topics and %d partitions", len(b), len(q.Topics), partitions)
		}
	})
}

func FuzzFetchRequest(f *testing.F) {
	for v := int16(0); v <= FetchMaxVersion; v++ {
		f.Add(v, kmsgFetch(v).AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, v int16, b []byte) {
		var q FetchRequest
		typed(t, q.Decode(b, v))
		partitions := 0
		for _, topic := range q.Topics {
			partitions += len(topic.Partitions)
		}
		if 3*(len(q.Topics)+len(q.Forgotten))+16*partitions > len(b)+22 {
			t.Errorf("%d bytes decoded into %d topics and %d partitions", len(b), len(q.Topics), partitions)
		}
	})
}

func FuzzHandshakeRequests(f *testing.F) {
	f.Add(int16(3), []byte("\x05name\x041.2\x00"))
	f.Add(int16(0), []byte("\x00\x05PLAIN"))
	f.Add(int16(2), []byte("\x06token\x00"))
	f.Fuzz(func(t *testing.T, v int16, b []byte) {
		typed(t, new(ApiVersionsRequest).Decode(b, v))
		typed(t, new(SaslHandshakeRequest).Decode(b, v))
		typed(t, new(SaslAuthenticateRequest).Decode(b, v))
	})
}
