package controller

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestStuckWrite: a write that takes too long poisons the raft log, for ever; one that takes nearly as long does not.
func TestStuckWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		poison := make(chan error, 1)
		s := &logStore{stuck: 5 * time.Second, poison: poison}
		if err := s.write("append", func() error { time.Sleep(4900 * time.Millisecond); return nil }); err != nil {
			t.Errorf("a slow write: %v", err)
		}
		err := s.write("append", func() error { time.Sleep(5100 * time.Millisecond); return nil })
		if _, ok := errors.AsType[*PoisonedError](err); !ok || !errors.Is(err, errStuck) {
			t.Errorf("a write that hung and came back: %v", err)
		}
		if got := <-poison; !errors.Is(got, errStuck) {
			t.Errorf("poisoned by %v", got)
		}
		if err := s.write("append", func() error { t.Error("written to a poisoned log"); return nil }); err == nil {
			t.Error("a poisoned log takes writes")
		}
	})
}
