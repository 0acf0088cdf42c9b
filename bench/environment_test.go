package bench

import (
	"os"
	"path/filepath"
	"testing"
)

// TestBrokersAreNotToldTheEnvironment: a SKEIN_ variable of the shell would be a setting of what is measured.
func TestBrokersAreNotToldTheEnvironment(t *testing.T) {
	t.Setenv("SKEIN_NUM_PARTITIONS", "3")
	dir := t.TempDir()
	binary, seen := filepath.Join(dir, "skein"), filepath.Join(dir, "seen")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\necho \"[$SKEIN_NUM_PARTITIONS]\" >>'"+seen+"'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := (Skein{Binary: binary}).Start(t.Context(), dir); err == nil {
		t.Error("a target without a ready line started")
	}
	if _, err := (SkeinFleet{Binary: binary, Port: 1}).Launch(t.Context(), dir, 1); err == nil {
		t.Error("a fleet without a ready line started")
	}
	text, err := os.ReadFile(seen)
	if err != nil || string(text) != "[]\n[]\n" {
		t.Errorf("the brokers see %q (%v), want nothing twice", text, err)
	}
}
