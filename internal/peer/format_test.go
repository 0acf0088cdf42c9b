package peer

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

func TestPrefaceGolden(t *testing.T) {
	h := hello{cluster: "abc", from: 1, to: Anyone, version: 1, minVersion: 1}
	const want = "d5534b" + "52" + "01" + "01" + "00000001" + "ffffffff" + "03" + "616263"
	b := appendPreface(nil, kindRaft, h)
	if got := hex.EncodeToString(b); got != want {
		t.Fatalf("preface %s, want %s", got, want)
	}
	k, got, err := readPreface(bytes.NewReader(b))
	if err != nil || k != kindRaft || got != h {
		t.Fatalf("%c %+v %v", k, got, err)
	}
	for cut := range b {
		if _, _, err := readPreface(bytes.NewReader(b[:cut])); err == nil {
			t.Errorf("cut at %d: no error", cut)
		}
	}
}

func TestReplyGolden(t *testing.T) {
	if got := hex.EncodeToString(appendReply(nil, nil)); got != "000000" {
		t.Errorf("taken: %s", got)
	}
	b := appendReply(nil, &RefusedError{WrongCluster, "no"})
	if got := hex.EncodeToString(b); got != "01"+"0002"+"6e6f" {
		t.Errorf("refused: %s", got)
	}
	err := readReply(bytes.NewReader(b))
	if r, ok := errors.AsType[*RefusedError](err); !ok || r.Reason != WrongCluster || r.Message != "no" {
		t.Errorf("%v", err)
	}
}

func FuzzReadPreface(f *testing.F) {
	f.Add(appendPreface(nil, kindEtcd, hello{cluster: "abc", from: 1, to: 2, version: 1, minVersion: 1}))
	f.Add([]byte(prefaceMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, h, err := readPreface(bytes.NewReader(b))
		if err != nil {
			return
		}
		if again := appendPreface(nil, k, h); !bytes.HasPrefix(b, again) {
			t.Errorf("%x read as %+v, which is %x", b, h, again)
		}
	})
}

func FuzzReadReply(f *testing.F) {
	f.Add(appendReply(nil, nil))
	f.Add(appendReply(nil, &RefusedError{WrongVersion, "old"}))
	f.Fuzz(func(t *testing.T, b []byte) { _ = readReply(bytes.NewReader(b)) })
}
