package commitlog

import (
	"errors"
	"os"
	"testing"

	"github.com/skeinmq/skein/internal/vfs"
)

// story is everything that a log does in its life, in three sessions.
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
	err = session(fs, m, func(s *scenario) error {
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
	if err != nil {
		return err
	}
	return session(fs, m, thinOut)
}

// thinOut leaves little that is live in the files, so that they are rewritten, and those again.
func thinOut(s *scenario) error {
	for range 2 {
		for i := range 20 {
			if err := s.send(int32(i%3), 60000); err != nil {
				return err
			}
		}
		s.inFlight.Wait()
		for p := int32(1); p < 3; p++ {
			if err := s.setLogStart(p, s.m.parts[p].acked-1); err != nil {
				return err
			}
		}
		if err := s.sort(); err != nil {
			return err
		}
		if err := s.setLogStart(0, s.m.parts[0].acked/2); err != nil {
			return err
		}
	}
	return s.sort()
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
	if m.sorted == 0 {
		t.Error("no file was rewritten")
	}
	if err := m.verify(mem); err != nil {
		t.Fatal(err)
	}
}

// sweepRules are what happens to the n-th change of the disk: it fails before or after its
// effect or in the middle. The last two are the power cut itself: nothing succeeds from
// then on.
var sweepRules = []vfs.Rule{
	{Effect: vfs.FailBefore}, {Effect: vfs.FailAfter}, {Effect: vfs.Tear},
	{Effect: vfs.Tear, Times: -1}, {Effect: vfs.FailBefore, Times: -1},
}

// sweepOne tells the story with one fault, cuts the power and checks what was promised.
func sweepOne(rule vfs.Rule, n int) (fired []vfs.Op, err error) {
	mem := vfs.NewMem()
	faulty := vfs.NewFaulty(mem)
	rule.Nth, rule.Seed = n, uint64(n)
	fault := faulty.Inject(rule)
	m := newModel()
	if err := story(faulty, m); errors.Is(err, errBroken) {
		return fault.Fired(), err
	}
	return fault.Fired(), m.verify(mem.Crash(uint64(n)))
}

// TestFaultSweep fails the n-th change of the disk, for every n. SKEIN_SWEEP=full applies
// every rule to every change.
func TestFaultSweep(t *testing.T) {
	full := os.Getenv("SKEIN_SWEEP") == "full"
	for n, silent := 1, 0; silent < len(sweepRules); n++ {
		silent++
		for i, rule := range sweepRules {
			if !full && n%len(sweepRules) != i {
				continue
			}
			fired, err := sweepOne(rule, n)
			if len(fired) > 0 {
				silent = 0
			}
			if err != nil {
				t.Fatalf("change %d, %v, times %d, hit %v: %v", n, rule.Effect, rule.Times, fired, err)
			}
		}
	}
}
