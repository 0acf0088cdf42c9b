package queuemapper

import (
	"errors"
	"strings"
	"testing"
)

// know has this build know levels up to a number.
func know(t *testing.T, level Level) {
	t.Helper()
	was := newest
	newest = level
	t.Cleanup(func() { newest = was })
}

func TestRaiseLevel(t *testing.T) {
	know(t, 1)
	cfg := testConfig(t)
	s, err := Open(t.Context(), cfg, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Map().Level(); got != 1 {
		t.Errorf("level %d of a fresh map", got)
	}
	if err := s.RaiseLevel(t.Context(), 2); !errors.Is(err, ErrInvalid) {
		t.Errorf("raised to a level that this build does not know: %v", err)
	}
	know(t, 3)
	for _, to := range []Level{1, 3, 3} {
		if err := s.RaiseLevel(t.Context(), to); err != nil {
			t.Fatal(err)
		}
		if s.Map().Level() != to {
			t.Errorf("level %d, want %d", s.Map().Level(), to)
		}
	}
	if err := s.RaiseLevel(t.Context(), 2); !errors.Is(err, ErrInvalid) {
		t.Errorf("lowered: %v", err)
	}
	know(t, 2)
	for _, key := range []string{keyBroker(1), keyTopic("t")} { // before and behind the level's, in a form of that level
		newer := finish([]byte{key[1] - 'a' + 'A', 9})
		if _, err := s.client.Put(t.Context(), s.key(key), string(newer)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(t.Context(), cfg, ""); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "feature level is 3") {
		t.Errorf("an older build opened the map, or does not say what it is: %v", err)
	}
}

// TestOlderBuildEnds: a build that serves while the level is raised beyond it ends, and says why.
func TestOlderBuildEnds(t *testing.T) {
	s, err := Open(t.Context(), testConfig(t), "")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context()) }()
	if _, err := s.client.Put(t.Context(), s.key(keyLevel), string(encodeLevel(NewestLevel()+1))); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, ErrVersion) {
		t.Errorf("Run ended with %v", err)
	}
}
