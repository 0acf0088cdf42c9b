package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestFuzzAll: a sound target ends well when its time is over; one with a mistake fails, with the input in its testdata. Before a
// target has begun an interrupt kills it, and on a busy machine that takes a while.
func TestFuzzAll(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module fuzzed\n\ngo 1.24\n")
	write("sound_test.go", "package fuzzed\n\nimport \"testing\"\n\nfunc FuzzSound(f *testing.F) {\n\tf.Fuzz(func(t *testing.T, b []byte) {})\n}\n")
	var out strings.Builder
	if err := fuzzAll(t.Context(), dir, 10*time.Second, &out); err != nil || !strings.Contains(out.String(), "fuzzed FuzzSound") || !strings.Contains(out.String(), "execs: ") {
		t.Errorf("a sound target: %v\n%s", err, out.String())
	}
	if err := os.Remove(filepath.Join(dir, "sound_test.go")); err != nil {
		t.Fatal(err)
	}
	write("wrong_test.go", "package fuzzed\n\nimport \"testing\"\n\nfunc FuzzWrong(f *testing.F) {\n\tf.Fuzz(func(t *testing.T, b []byte) {\n\t\tif len(b) > 3 {\n\t\t\tt.Fatal(\"too long\")\n\t\t}\n\t})\n}\n")
	out.Reset()
	err := fuzzAll(t.Context(), dir, 5*time.Minute, &out)
	if err == nil || !strings.Contains(err.Error(), "fuzzed: FuzzWrong") {
		t.Errorf("a target with a mistake: %v\n%s", err, out.String())
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "testdata", "fuzz", "FuzzWrong", "*")); len(found) == 0 {
		t.Errorf("the input that failed is not kept:\n%s", out.String())
	}
}
