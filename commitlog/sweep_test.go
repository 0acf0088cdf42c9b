package commitlog

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/skeinmq/skein/internal/vfs"
)

// story is everything that a log does in its life, in two sessions.
func story(fs vfs.FS, m *model) error {
	err := session(fs, m, func(s *scenario) error {
		for i := range 30 {
			if err := s.send(int32(i%4), 20000+1000*i); err != nil {
				return err
			}
		}
		s.inFlight.Wait()
		if err := s.setLogStart(1, min(3, m.parts[1].acked)); err != nil {
			return err
		}
		if err := s.drop(3); err != nil {
			return err
		}
		if err := s.move(0); err != nil {
			return err
		}
		for i := range 20 {
			if err := s.send(int32(i%3), 60000); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return session(fs, m, func(s *scenario) error {
		for i := range 20 {
			if err := s.send(int32(i%3), 60000); err != nil {
				return err
			}
		}
		s.inFlight.Wait()
		for p := range int32(3) {
			if err := s.setLogStart(p, min(10, m.parts[p].acked)); err != nil {
				return err
			}
		}
		if err := s.move(1); err != nil {
			return err
		}
		for i := range 10 {
			if err := s.send(int32(i%3), 100); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestStoryWithoutFaults(t *testing.T) {
	mem := vfs.NewMem()
	m := newModel()
	if err := story(mem, m); err != nil {
		t.Fatal(err)
	}
	for p, part := range m.parts {
		if part.acked != len(part.sent) {
			t.Fatalf("partition %d: %d of %d acked", p, part.acked, len(part.sent))
		}
	}
	m.verify(t, mem)
}

// TestFaultSweep fails the n-th change of the disk, for every n, before or after its
// effect or in the middle, then cuts the power and checks what was promised. The last
// effect is the power cut itself: nothing succeeds from the n-th change on.
func TestFaultSweep(t *testing.T) {
	kinds := []vfs.Rule{
		{Effect: vfs.FailBefore}, {Effect: vfs.FailAfter}, {Effect: vfs.Tear},
		{Effect: vfs.Tear, Times: -1}, {Effect: vfs.FailBefore, Times: -1},
	}
	full := os.Getenv("SKEIN_SWEEP") == "full"
	for n, silent := 1, 0; silent < len(kinds); n++ {
		silent++
		for i, rule := range kinds {
			if !full && n%len(kinds) != i {
				continue
			}
			rule.Nth, rule.Seed = n, uint64(n)
			t.Run(fmt.Sprintf("%d/%v/%d", n, rule.Effect, rule.Times), func(t *testing.T) {
				mem := vfs.NewMem()
				faulty := vfs.NewFaulty(mem)
				fault := faulty.Inject(rule)
				m := newModel()
				err := story(faulty, m)
				if errors.Is(err, errBroken) {
					t.Fatal(err)
				}
				if ops := fault.Fired(); len(ops) > 0 {
					silent = 0
					t.Logf("fired %v: %v", ops[0], err)
				}
				m.verify(t, mem.Crash(uint64(n)))
			})
		}
		if t.Failed() {
			return
		}
	}
}
