package main

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestNodeFile: what is written is read again; what is damaged is refused by the name of the file, and stays as it is.
func TestNodeFile(t *testing.T) {
	dir := t.TempDir()
	if f, err := readNodeFile(dir); f != nil || err != nil {
		t.Fatalf("a fresh directory: %+v, %v", f, err)
	}
	want := nodeFile{Version: nodeFileVersion, Node: 3, Internal: "h:1", Members: []nodeMember{{Broker: 1, Address: "g:2", Voter: true}}, Etcd: []string{"g:2"}, Level: 1}
	if err := want.write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := readNodeFile(dir)
	if err != nil || !reflect.DeepEqual(*got, want) {
		t.Fatalf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "{", "null", "[]", `{"version":2}`, `{"version":1,"node":"x"}`, `{"version":1,"level":99}`, `{"version":1} x`} {
		if err := os.WriteFile(nodeFileName(dir), []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readNodeFile(dir); err == nil || !strings.Contains(err.Error(), nodeFileName(dir)) {
			t.Errorf("%q: %v", bad, err)
		}
		if left, err := os.ReadFile(nodeFileName(dir)); err != nil || string(left) != bad {
			t.Errorf("%q: the file is now %q, %v", bad, left, err)
		}
	}
}

// FuzzNodeFile: no text makes it panic, and what is taken is of a version that this build knows.
func FuzzNodeFile(f *testing.F) {
	f.Add([]byte(`{"version":1,"node":3,"internal":"h:1","members":[{"broker":1,"address":"g:2","voter":true}],"etcd":["g:2"],"level":1}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, err := parseNodeFile(text); err == nil && got.Version != nodeFileVersion {
			t.Fatalf("%q: version %d", text, got.Version)
		}
	})
}
